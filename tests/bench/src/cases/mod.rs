//! What is measured.

mod connect;
pub(crate) mod http;
mod memory;
mod streams;

use anyhow::Result;
use clap::ValueEnum;

use crate::sampling::cpu::CpuTime;
use crate::stage::Stage;
use crate::subjects::Subject;

pub(crate) use connect::connecting;

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// The proxies' memory, idle and with 1,000 connections
    Memory,
    /// How long connect() takes, with and without hooks
    Connect,
    /// One TCP stream, 128 KB writes
    #[value(name = "stream-1")]
    Stream1,
    /// Eight TCP streams
    #[value(name = "stream-8")]
    Stream8,
    /// HTTP/1.1 over one connection
    #[value(name = "http-1")]
    Http1,
    /// HTTP/1.1 over 32 connections
    #[value(name = "http-32")]
    Http32,
    /// HTTP/1.1, a new connection for each request, 32 at a time
    #[value(name = "http-new")]
    HttpNew,
}

impl Case {
    pub(crate) const ALL: [Self; 7] =
        [Self::Memory, Self::Connect, Self::Stream1, Self::Stream8, Self::Http1, Self::Http32, Self::HttpNew];

    /// As people and results name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Connect => "connect",
            Self::Stream1 => "stream-1",
            Self::Stream8 => "stream-8",
            Self::Http1 => "http-1",
            Self::Http32 => "http-32",
            Self::HttpNew => "http-new",
        }
    }

    /// Whether it is requests, which are all that a waypoint is asked.
    const fn is_http(self) -> bool {
        matches!(self, Self::Http1 | Self::Http32 | Self::HttpNew)
    }

    /// Whether it says anything of the subject.
    pub(crate) fn is_for(self, subject: Subject) -> bool {
        subject != Subject::Waypoint || self.is_http()
    }

    /// Measures it once. Empty where the case has no meaning for the subject.
    pub(crate) fn measure(self, stage: &mut Stage, subject: Subject, seconds: u32) -> Result<Vec<Reading>> {
        match self {
            Self::Memory => memory::measure(stage, subject),
            Self::Connect => connect::measure(stage, subject),
            Self::Stream1 => streams::measure(stage, subject, 1, seconds),
            Self::Stream8 => streams::measure(stage, subject, 8, seconds),
            Self::Http1 => http::measure(stage, subject, http::Load::kept(1), seconds),
            Self::Http32 => http::measure(stage, subject, http::Load::kept(32), seconds),
            Self::HttpNew => http::measure(stage, subject, http::Load::anew(32), seconds),
        }
    }
}

/// One value that was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading {
    /// What of the case.
    pub(crate) metric: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

/// A [`Reading`].
pub(crate) const fn reading(metric: &'static str, unit: &'static str, value: f64) -> Reading {
    Reading { metric, unit, value }
}

/// Processor time for each of `count` things, in `unit`, of which a microsecond is `scale`.
fn cpu_readings(used: &CpuTime, count: f64, unit: &'static str, scale: f64) -> Vec<Reading> {
    let each = |metric, time: f64| reading(metric, unit, time * scale / count);
    vec![
        each("cpu", used.lab()),
        each("cpu-user", used.user),
        each("cpu-kernel", used.kernel),
        each("cpu-softirq", used.softirq),
        each("cpu-proxies", used.proxies()),
        each("cpu-proxies-user", used.proxy_user),
        reading("noise", "% of a core", 100.0 * used.strangers() / used.elapsed),
    ]
}
