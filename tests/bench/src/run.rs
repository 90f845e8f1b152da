//! A run: set-up, interleaved repeats, what is printed and kept.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::args::Args;
use crate::cases::{Case, Reading};
use crate::samples::Samples;
use crate::sampling::hooks;
use crate::sampling::idle::{self, Awake};
use crate::stage::{Settings, Stage};
use crate::subjects::Subject;
use crate::{figures, result, table};

/// Above this share of a core, others' work on the machine is worth a warning.
const NOISY: f64 = 10.0;
/// Sleeps of a core for each request of one connection, below which cores stay awake.
const FEW_SLEEPS: f64 = 0.2;

/// Measures, prints and keeps.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (cases, subjects, out) = (args.cases(), args.subjects(), args.out()?);
    let counting = hooks::counting();
    mesh_lab::on_interrupt(move || counting.iter().for_each(|value| hooks::set_counting(value)))?;
    let install = || mesh_lab::envoy(&out.join("envoy")).context("leave it out by: --subject raw --subject mesh");
    let envoy = subjects.iter().any(|subject| subject.is_envoy()).then(install).transpose()?;
    let awake = args.awake.then(Awake::ask).transpose()?;
    let start = Instant::now();
    let settings = Settings {
        workers: args.workers(),
        mesh_args: args.mesh_args(),
        congestion: args.congestion.clone(),
        one_node: args.one_node,
        envoy,
    };
    let stage = Stage::set_up(settings).inspect_err(|_| mesh_lab::rest_if_interrupted())?;
    println!(
        "{} core(s), idle by {}{}; TCP by {}; {} worker(s) a proxy; {} repeat(s) of {} s",
        std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        idle::governor(),
        if awake.is_some() { ", kept awake" } else { "" },
        stage.congestion()?,
        args.workers(),
        args.repeats,
        args.seconds,
    );
    let samples = measure(stage, args, &cases, &subjects).inspect_err(|_| mesh_lab::rest_if_interrupted())?;
    let entries = samples.entries();
    println!("\nmedian [low-high] and ratio to raw, over {} repeat(s)\n", args.repeats);
    println!("{}", table::measurements(&samples, &subjects, false));
    print_machine(&samples);
    let reached = if args.one_node { figures::of_one_node(&samples) } else { figures::all(&samples) };
    println!("{}", table::figures(&reached));
    let before = result::keep(&out, &entries)?;
    if let Some(before) = before {
        let changes = result::changes(&before, &entries);
        if changes.is_empty() {
            println!("Nothing differs from the result before by more than the repeats do.");
        } else {
            println!(
                "What differs from the result before by more than the repeats do:\n\n{}",
                table::changes(&changes)
            );
        }
    }
    println!("Kept as latest.json in {}. It took {:.0} s.", out.display(), start.elapsed().as_secs_f64());
    Ok(())
}

/// All repeats of all cases with all subjects, the subjects innermost.
fn measure(mut stage: Stage, args: &Args, cases: &[Case], subjects: &[Subject]) -> Result<Samples> {
    let mut samples = Samples::default();
    let of_case = |case: &Case| subjects.iter().filter(|subject| case.is_for(**subject)).count();
    let all = args.repeats as usize * cases.iter().map(of_case).sum::<usize>();
    let mut done = 0;
    for repeat in 0..args.repeats {
        for &case in cases {
            for &subject in subjects.iter().filter(|subject| case.is_for(**subject)) {
                let what = || format!("{} {}, repeat {}", case.name(), subject.name(), repeat + 1);
                let readings = measure_once(&mut stage, case, subject, args.seconds).with_context(what)?;
                done += 1;
                if let Some(first) = readings.first() {
                    eprintln!(
                        "[{done:>3}/{all}] {}: {} {} {}",
                        what(),
                        first.metric,
                        table::number(first.value),
                        first.unit
                    );
                }
                samples.add(case.name(), subject, repeat, readings);
            }
        }
    }
    stage.take_down()?;
    Ok(samples)
}

/// One measurement, with proof that the mesh was in the way, or that it was not.
fn measure_once(stage: &mut Stage, case: Case, subject: Subject, seconds: u32) -> Result<Vec<Reading>> {
    if matches!(case, Case::Memory | Case::Connect) {
        // These start and end daemons, and their counters with them.
        return case.measure(stage, subject, seconds);
    }
    stage.enter(subject)?;
    let before = stage.carried_by_mesh()?;
    let readings = case.measure(stage, subject, seconds)?;
    let carried = stage.carried_by_mesh()?.saturating_sub(before);
    ensure!((carried > 0) == subject.is_mesh(), "the mesh carried {carried} connections");
    Ok(readings)
}

/// In which state the machine was.
fn print_machine(samples: &Samples) {
    let sleeps = samples.spread("http-1/core-sleeps", Subject::Raw);
    if let Some(p50) = samples.spread("http-1/p50", Subject::Raw) {
        let state = match sleeps {
            Some(sleeps) if sleeps.median < FEW_SLEEPS => "cores stay awake between packets",
            Some(sleeps) if sleeps.low > FEW_SLEEPS => "cores sleep between packets",
            Some(_) => "cores sleep between packets at times",
            None => "this kernel does not tell whether cores sleep between packets",
        };
        let count =
            sleeps.map(|sleeps| format!(" ({} sleeps a request)", table::number(sleeps.median))).unwrap_or_default();
        println!(
            "State: {state}{count}; raw's p50 with one connection was {} us, from {} to {} over the repeats.",
            table::number(p50.median),
            table::number(p50.low),
            table::number(p50.high)
        );
    }
    let loud = |case: &Case| {
        samples.spread(&format!("{}/noise", case.name()), Subject::Mesh).is_some_and(|noise| noise.median > NOISY)
    };
    let loud: Vec<_> = Case::ALL.into_iter().filter(loud).map(Case::name).collect();
    if !loud.is_empty() {
        println!("Other programs, or the hypervisor, took more than {NOISY}% of a core during: {}.", loud.join(", "));
    }
    println!();
}
