//! The proxy of requests alone, as a gateway without TLS: the mesh's and Envoy, each on one core, between the same client and server,
//! with the loopback alone between them.
//!
//! Load and server have the other core. Both proxies have the same routes and write a line for each request.

mod changes;
mod envoy;
mod load;
mod stage;

use std::time::Instant;

use anyhow::{Context, Result};
use mesh_lab::Place as _;

pub(crate) use self::changes::asking;
use self::load::Load;
use self::stage::{Front, Stage};
use crate::args::GatewayArgs;
use crate::cases::{Reading, reading};
use crate::figures::{Bound, Figure};
use crate::samples::Samples;
use crate::sampling::cpu::CpuMeter;
use crate::sampling::memory::Memory;
use crate::subjects::Subject::{self, Envoy, Mesh, Raw};
use crate::{result, table};

const SUBJECTS: [Subject; 3] = [Raw, Mesh, Envoy];
/// Connections held while memory is read.
const HELD: u32 = 1_000;

/// One kind of load.
struct Case {
    name: &'static str,
    load: Load,
    front: Front,
}

const CASES: [Case; 5] = [
    Case { name: "h1-32", load: Load::http1(32), front: Front::OneRoute },
    Case { name: "h1-2048", load: Load::http1(2_048), front: Front::OneRoute },
    Case { name: "h2-32", load: Load::http2(32), front: Front::OneRoute },
    Case { name: "grpc-32", load: Load::grpc(32), front: Front::Grpc },
    Case { name: "routes-1000", load: Load::http1(32), front: Front::ManyRoutes },
];

/// Measures, prints and keeps.
pub(crate) fn run(args: &GatewayArgs, out: &std::path::Path) -> Result<()> {
    mesh_lab::on_interrupt(|| {})?;
    let envoy = mesh_lab::envoy(&out.join("envoy"))?;
    let start = Instant::now();
    let stage = Stage::set_up(&envoy).inspect_err(|_| mesh_lab::rest_if_interrupted())?;
    let samples = measure(&stage, args).inspect_err(|_| mesh_lab::rest_if_interrupted())?;
    stage.take_down()?;
    println!("\nmedian [low-high] and ratio to raw, over {} repeat(s) of {} s\n", args.repeats, args.seconds);
    println!("{}", table::measurements(&samples, &SUBJECTS, false));
    println!("{}", table::figures(&figures(&samples)));
    let out = out.join("gateway");
    result::keep(&out, &samples.entries())?;
    println!("Kept as latest.json in {}. It took {:.0} s.", out.display(), start.elapsed().as_secs_f64());
    Ok(())
}

fn measure(stage: &Stage, args: &GatewayArgs) -> Result<Samples> {
    let mut samples = Samples::default();
    // Before any load, and once more after all of it.
    samples.add("memory", Mesh, 0, memory(stage, Mesh)?);
    for repeat in 0..args.repeats {
        for case in &CASES {
            for subject in SUBJECTS {
                if subject == Raw && !case.load.reaches_server(case.front) {
                    continue;
                }
                let what = || format!("{} {}, repeat {}", case.name, subject.name(), repeat + 1);
                let readings = once(stage, subject, case, args.seconds).with_context(what)?;
                if let Some(first) = readings.first() {
                    eprintln!("{}: {} {} {}", what(), first.metric, table::number(first.value), first.unit);
                }
                samples.add(case.name, subject, repeat, readings);
            }
        }
    }
    for repeat in 0..args.repeats {
        samples.add("changes", Mesh, repeat, changes::measure(stage)?);
    }
    let process = stage.proxy(Mesh).context("a proxy")?;
    let after = Memory::of(process)?.resident / 1e6;
    samples.add("memory", Mesh, 0, vec![reading("resident-after-load", "MB", after)]);
    Ok(samples)
}

fn once(stage: &Stage, subject: Subject, case: &Case, seconds: u32) -> Result<Vec<Reading>> {
    let meter = CpuMeter::start(&stage.lab.id(), stage.proxy(subject).into_iter().collect())?;
    let done = case.load.run(stage, &stage.url(subject, case.front), seconds)?;
    let used = meter.used()?;
    let mut readings = vec![reading("requests", "1/s", done.requests / done.seconds)];
    readings.extend(done.p99.map(|p99| reading("p99", "us", p99)));
    if subject != Raw {
        readings.push(reading("cpu-proxy", "us/request", used.proxies() / done.requests));
    }
    Ok(readings)
}

/// What a proxy has resident with idle connections to it.
fn memory(stage: &Stage, subject: Subject) -> Result<Vec<Reading>> {
    let to = stage.address(subject, Front::OneRoute).to_string();
    let many = ["mesh-traffic", "many", "--to", &to, "--connections", &HELD.to_string(), "--hold"];
    let mut many = stage.pod.spawn(&many)?;
    many.wait_for_line("holding", stage::PATIENCE)?;
    let process = stage.proxy(subject).context("a proxy")?;
    let held = Memory::of(process)?;
    // Nobody answers what it would say at its end.
    drop(many);
    Ok(vec![reading("resident", "MB", held.resident / 1e6)])
}

fn figures(samples: &Samples) -> Vec<Figure> {
    let to_envoy = |name| samples.ratio(name, Mesh, Envoy);
    let figure = |what, bound, target, unit, value| Figure { what, bound, target, unit, value };
    let routes = samples.paired(("h1-32/requests", Mesh), ("routes-1000/requests", Mesh), |one, many| one / many);
    let pause =
        samples.paired(("changes/longest", Mesh), ("changes/longest-at-rest", Mesh), |with, without| with - without);
    vec![
        figure("requests/s, 32 connections, of Envoy's", Bound::AtLeast, 2.5, "x", to_envoy("h1-32/requests")),
        figure("requests/s, 2,048 connections, of Envoy's", Bound::AtLeast, 2.5, "x", to_envoy("h1-2048/requests")),
        figure("requests/s, HTTP/2, of Envoy's", Bound::AtLeast, 2.5, "x", to_envoy("h2-32/requests")),
        figure("calls/s, gRPC, of Envoy's", Bound::AtLeast, 2.5, "x", to_envoy("grpc-32/requests")),
        figure("p99, 32 connections, of Envoy's", Bound::AtMost, 0.6, "x", to_envoy("h1-32/p99")),
        figure("p99, 2,048 connections, of Envoy's", Bound::AtMost, 0.6, "x", to_envoy("h1-2048/p99")),
        figure("resident, 1,000 connections", Bound::AtMost, 25.0, "MB", samples.spread("memory/resident", Mesh)),
        figure("one route over 1,000 routes", Bound::AtMost, 1.2, "x", routes),
        figure("10,000 routes, in force after", Bound::AtMost, 200.0, "ms", samples.spread("changes/all", Mesh)),
        figure("a request meanwhile, more than the longest", Bound::AtMost, 5.0, "ms", pause),
    ]
}
