//! `mesh-ctl flows`: what happens to connections, as it happens.

use std::time::Duration;

use clap::Args;
use mesh_admin::{Flow, FlowLine, FlowSelection, Party, path};

use crate::Outcome;
use crate::daemon::{Daemon, Next};
use crate::output::{Format, note, print, print_line, time_of_day};

/// How long to watch without --follow, in seconds.
const DEFAULT_SECONDS: u64 = 10;

/// Shows connections as they open, end and are refused, and what the kernel drops, from now on.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Flows {
    #[command(flatten)]
    daemon: Daemon,
    /// Goes on until it is interrupted.
    #[arg(short, long)]
    follow: bool,
    /// How long to watch, in seconds.
    #[arg(long = "for", value_name = "SECONDS", conflicts_with = "follow", default_value_t = DEFAULT_SECONDS)]
    seconds: u64,
    /// Ends after so many flows.
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// Only flows with an end in this namespace.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Only such events; may be given several times.
    #[arg(short, long, value_name = "EVENT", value_parser = FlowSelection::EVENTS)]
    event: Vec<String>,
    /// The form of the output: a line each for programs, too.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Leaves the line of headings out.
    #[arg(long)]
    no_headers: bool,
}

impl Flows {
    pub(crate) fn run(&self) -> anyhow::Result<Outcome> {
        let selection = FlowSelection { namespace: self.namespace.clone(), events: self.event.clone() };
        let limit = (!self.follow).then_some(Duration::from_secs(self.seconds));
        let mut left = self.count.unwrap_or(usize::MAX);
        let headings = self.output == Format::Table && !self.no_headers;
        let begun = || if headings { print(&HEADINGS.replace('|', "  ")) } else { Ok(()) };
        let on_line = |line: &str| {
            match serde_json::from_str::<FlowLine>(line)? {
                FlowLine::Lost { lost } => note(&format!("{lost} flows were lost: too many to be shown in time")),
                FlowLine::Event(flow) => {
                    match self.output {
                        Format::Table => print(&row(&flow))?,
                        format => print_line(&flow, format)?,
                    }
                    left = left.saturating_sub(1);
                }
            }
            Ok(if left == 0 { Next::Stop } else { Next::More })
        };
        self.daemon.follow(path::FLOWS, &selection.to_query(), limit, begun, on_line)?;
        Ok(Outcome::Good)
    }
}

/// As wide as [`row`] makes its columns.
const HEADINGS: &str = "TIME (UTC)  |EVENT  |SECURITY  |SOURCE -> DESTINATION: BYTES SENT, RECEIVED; HOW IT ENDED\n";

/// Columns for what has a bound, a sentence for the rest: the next row's widths are not known yet.
fn row(flow: &Flow) -> String {
    let Flow { talk, .. } = flow;
    let mut text = format!(
        "{:12}  {:7}  {:10}  {} -> {}",
        time_of_day(flow.at_milliseconds),
        flow.event,
        talk.security,
        name(&talk.source),
        name(&talk.destination),
    );
    if let Some(service) = &talk.service {
        text += &format!(" ({service})");
    }
    if !["opened", "dropped"].contains(&flow.event.as_str()) {
        text += &format!(": {}, {}", talk.bytes_from_client, talk.bytes_to_client);
    }
    if let Some(end) = &flow.end {
        text += &format!("; {end}");
    }
    if let Some(detail) = &flow.detail {
        text += &format!(": {detail}");
    }
    // What a manifest says must not steer the terminal.
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.push('\n');
    text
}

/// A pod by its name with the port, anything else by its address.
pub(crate) fn name(party: &Party) -> String {
    match (&party.namespace, &party.pod, party.address) {
        (Some(namespace), Some(pod), Some(address)) => format!("{namespace}/{pod}:{}", address.port()),
        (Some(namespace), Some(pod), None) => format!("{namespace}/{pod}"),
        (_, _, Some(address)) => address.to_string(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use mesh_admin::Talk;

    use super::*;

    #[test]
    fn a_flow_is_a_line() {
        let party = |pod: &str, address: &str| Party {
            address: Some(address.parse().expect("an address")),
            namespace: Some("shop".into()),
            pod: Some(pod.into()),
            ..Party::default()
        };
        let mut flow = Flow {
            at_milliseconds: 1_700_000_003_042,
            event: "closed".into(),
            id: 1,
            talk: Talk {
                reporter: "source".into(),
                source: party("client", "10.0.0.1:40000"),
                destination: Party { address: Some("[fd00::1]:80".parse().expect("an address")), ..Party::default() },
                service: None,
                original_destination: None,
                security: "none".into(),
                policy: None,
                bytes_from_client: 7,
                bytes_to_client: 9,
            },
            end: Some("closed".into()),
            detail: None,
        };
        let expected = "22:13:23.042  closed   none        shop/client:40000 -> [fd00::1]:80: 7, 9; closed\n";
        assert_eq!(row(&flow), expected);
        flow.detail = Some("because\nof\x1b[31m".into());
        assert_eq!(row(&flow).lines().count(), 1);
        assert!(row(&flow).ends_with("; closed: because of [31m\n"));
    }
}
