//! The figures to reach, as the project's issues of the data path and of L4 state them.

use crate::samples::Samples;
use crate::statistics::Spread;
use crate::subjects::Subject::{Envoy, Mesh, Raw, Waypoint};

/// Which side of its target a figure has to be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    AtLeast,
    MoreThan,
    AtMost,
}

/// How a figure stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Met,
    /// The median meets it, not every repeat.
    MetByMedian,
    Missed,
    NotMeasured,
}

/// One figure to reach.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) what: &'static str,
    pub(crate) bound: Bound,
    pub(crate) target: f64,
    pub(crate) unit: &'static str,
    pub(crate) value: Option<Spread>,
}

impl Figure {
    pub(crate) fn standing(&self) -> Standing {
        let Some(Spread { median, low, high }) = self.value else { return Standing::NotMeasured };
        let meets = |value: f64| match self.bound {
            Bound::AtLeast => value >= self.target,
            Bound::MoreThan => value > self.target,
            Bound::AtMost => value <= self.target,
        };
        match (meets(median), meets(low) && meets(high)) {
            (true, true) => Standing::Met,
            (true, false) => Standing::MetByMedian,
            (false, _) => Standing::Missed,
        }
    }
}

/// All of them, by what was measured.
pub(crate) fn all(samples: &Samples) -> Vec<Figure> {
    let to_raw = |name| samples.ratio(name, Mesh, Raw);
    let to_envoy = |name| samples.ratio(name, Mesh, Envoy);
    let sides = ("memory/connection-client-side", "memory/connection-server-side");
    let connection = samples.paired((sides.0, Mesh), (sides.1, Mesh), f64::max);
    let added = samples.paired(("connect/remote", Mesh), ("connect/loopback", Raw), |with, without| with - without);
    let figure = |what, bound, target, unit, value| Figure { what, bound, target, unit, value };
    vec![
        figure("1 stream, of raw", Bound::AtLeast, 0.4, "x", to_raw("stream-1/throughput")),
        figure("1 stream, of Envoy's", Bound::MoreThan, 1.0, "x", to_envoy("stream-1/throughput")),
        figure("HTTP p50, 1 connection, of Envoy's", Bound::AtMost, 0.5, "x", to_envoy("http-1/p50")),
        figure("requests/s, 32 connections, of Envoy's", Bound::AtLeast, 2.0, "x", to_envoy("http-32/requests")),
        figure("requests/s, 32 connections, of raw's", Bound::AtLeast, 0.35, "x", to_raw("http-32/requests")),
        figure(
            "HTTP p50, by a waypoint, of the mesh's without",
            Bound::AtMost,
            1.3,
            "x",
            samples.ratio("http-1/p50", Waypoint, Mesh),
        ),
        figure("daemon idle, resident", Bound::AtMost, 15.0, "MB", samples.spread("memory/idle", Mesh)),
        figure("daemon, a proxied connection", Bound::AtMost, 20_000.0, "bytes", connection),
        figure("connect(), added by the hooks", Bound::AtMost, 5.0, "us", added),
    ]
}

/// Those for two pods of one node.
pub(crate) fn of_one_node(samples: &Samples) -> Vec<Figure> {
    let to_raw = |name| samples.ratio(name, Mesh, Raw);
    let figure = |what, bound, target, value| Figure { what, bound, target, unit: "x", value };
    vec![
        figure("1 stream, of raw", Bound::AtLeast, 0.97, to_raw("stream-1/throughput")),
        figure("HTTP p50, 1 connection, of raw's", Bound::AtMost, 1.03, to_raw("http-1/p50")),
        figure("new connections/s, of raw's", Bound::AtLeast, 0.9, to_raw("http-new/requests")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::Reading;

    #[test]
    fn a_figure_is_met_by_all_repeats_or_by_their_median() {
        let cases = [
            (Bound::AtLeast, (0.40, 0.41, 0.42), Standing::Met),
            (Bound::AtLeast, (0.39, 0.41, 0.42), Standing::MetByMedian),
            (Bound::AtLeast, (0.38, 0.39, 0.42), Standing::Missed),
            (Bound::MoreThan, (0.40, 0.40, 0.40), Standing::Missed),
            (Bound::AtMost, (0.1, 0.2, 0.4), Standing::Met),
            (Bound::AtMost, (0.1, 0.2, 0.5), Standing::MetByMedian),
        ];
        for (bound, (low, median, high), standing) in cases {
            let value = Some(Spread { median, low, high });
            let figure = Figure { what: "", bound, target: 0.4, unit: "x", value };
            assert_eq!(figure.standing(), standing, "{figure:?}");
        }
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        assert!(all(&Samples::default()).iter().all(|figure| figure.standing() == Standing::NotMeasured));
    }

    #[test]
    fn what_hooks_add_is_the_difference_to_a_plain_connect() {
        let mut samples = Samples::default();
        let connect = |metric, value| vec![Reading { metric, unit: "us", value }];
        samples.add("connect", Raw, 0, connect("loopback", 30.0));
        samples.add("connect", Mesh, 0, connect("remote", 33.5));
        let figures = all(&samples);
        let figure = figures.last().expect("figures");
        assert_eq!(figure.value.map(|it| it.median), Some(3.5));
    }
}
