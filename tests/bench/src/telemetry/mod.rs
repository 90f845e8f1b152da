//! What telemetry costs: the same load with all of it, with a part, and without; and how much Prometheus gets to read.
//!
//! The daemons of each kind follow one another in each repeat, so that what changes on the machine meets all of them.

mod series;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::args::TelemetryArgs;
use crate::cases::Case;
use crate::figures::{Bound, Figure};
use crate::samples::Samples;
use crate::stage::{Settings, Stage};
use crate::subjects::Subject::Mesh;
use crate::{result, table};

/// What the daemons tell.
struct Kind {
    name: &'static str,
    arguments: &'static [&'static str],
}

/// Without lines and requests: what is left are counters of connections, which there is no way to turn off.
const OFF: Kind = Kind { name: "off", arguments: &["--log", "info,access=off", "--no-request-metrics"] };
/// Golden signals alone.
const SIGNALS: Kind = Kind { name: "signals", arguments: &["--log", "info,access=off"] };
/// As installed: a line for each connection, golden signals.
const DEFAULTS: Kind = Kind { name: "defaults", arguments: &[] };

/// Connections that stay, one and many; and one for each request, where the lines are.
const CASES: [Case; 3] = [Case::Http1, Case::Http32, Case::HttpNew];

/// Measures, prints and keeps.
pub(crate) fn run(args: &TelemetryArgs, out: &Path) -> Result<()> {
    mesh_lab::on_interrupt(|| {})?;
    let start = Instant::now();
    let mut samples = measure(args).inspect_err(|_| mesh_lab::rest_if_interrupted())?;
    for (node, readings) in series::measure(args.services).inspect_err(|_| mesh_lab::rest_if_interrupted())? {
        samples.add("series", Mesh, node, readings);
    }
    println!("\nmedian [low-high] over {} repeat(s) of {} s\n", args.repeats, args.seconds);
    println!("{}", table::measurements(&samples, &[Mesh], false));
    println!("{}", table::figures(&figures(&samples)));
    let out = out.join("telemetry").join(if args.one_node { "one-node" } else { "" });
    result::keep(&out, &samples.entries())?;
    println!("Kept as latest.json in {}. It took {:.0} s.", out.display(), start.elapsed().as_secs_f64());
    Ok(())
}

fn measure(args: &TelemetryArgs) -> Result<Samples> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    let mut stage = Stage::set_up(Settings {
        workers: cores,
        mesh_args: Vec::new(),
        congestion: None,
        one_node: args.one_node,
        envoy: None,
    })?;
    let mut samples = Samples::default();
    for repeat in 0..args.repeats {
        // Every other repeat the other way round: what comes first has a cooler machine.
        let mut kinds = [&OFF, &SIGNALS, &DEFAULTS];
        if repeat % 2 == 1 {
            kinds.reverse();
        }
        for kind in kinds {
            stage.settings.mesh_args = kind.arguments.iter().map(|&argument| argument.to_owned()).collect();
            stage.enter_anew(Mesh)?;
            for case in CASES {
                let what = || format!("{} {}, repeat {}", kind.name, case.name(), repeat + 1);
                let before = stage.carried_by_mesh()?;
                let readings = case.measure(&mut stage, Mesh, args.seconds).with_context(what)?;
                ensure!(stage.carried_by_mesh()? > before, "{}: the mesh carried nothing", what());
                if let Some(first) = readings.first() {
                    eprintln!("{}: {} {} {}", what(), first.metric, table::number(first.value), first.unit);
                }
                samples.add(&format!("{}-{}", kind.name, case.name()), Mesh, repeat, readings);
            }
        }
    }
    stage.take_down()?;
    Ok(samples)
}

fn figures(samples: &Samples) -> Vec<Figure> {
    let of_off = |name: &str, of: &str| samples.paired((name, Mesh), (of, Mesh), |with, without| with / without);
    let figure = |what, bound, target, unit, value| Figure { what, bound, target, unit, value };
    let throughput = |kind: &Kind| of_off(&format!("{}-http-32/requests", kind.name), "off-http-32/requests");
    let p50 = |kind: &Kind| of_off(&format!("{}-http-1/p50", kind.name), "off-http-1/p50");
    let anew = of_off("defaults-http-new/requests", "off-http-new/requests");
    vec![
        figure("defaults, requests/s of 32 connections, of off", Bound::AtLeast, 0.95, "x", throughput(&DEFAULTS)),
        figure("defaults, p50 of 1 connection, of off", Bound::AtMost, 1.05, "x", p50(&DEFAULTS)),
        figure("defaults, a connection each request, of off", Bound::AtLeast, 0.95, "x", anew),
        figure("golden signals, requests/s, of off", Bound::AtLeast, 0.92, "x", throughput(&SIGNALS)),
        figure("golden signals, p50, of off", Bound::AtMost, 1.08, "x", p50(&SIGNALS)),
        figure("series of a node", Bound::AtMost, 10_000.0, "", samples.spread("series/series", Mesh)),
        figure("scrape", Bound::AtMost, 50.0, "ms", samples.spread("series/scrape", Mesh)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::reading;
    use crate::figures::Standing;

    #[test]
    fn costs_are_of_the_same_repeat() {
        let mut samples = Samples::default();
        for (repeat, off, with) in [(0, 1_000.0, 960.0), (1, 500.0, 490.0)] {
            samples.add("off-http-32", Mesh, repeat, vec![reading("requests", "1/s", off)]);
            samples.add("defaults-http-32", Mesh, repeat, vec![reading("requests", "1/s", with)]);
        }
        let figures = figures(&samples);
        assert_eq!((figures[0].standing(), figures[1].standing()), (Standing::Met, Standing::NotMeasured));
    }
}
