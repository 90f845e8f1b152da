//! The steps one after the other, and the table of what they showed.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::claim::reason;
use crate::scene::Scene;
use crate::screen::{Screen, seconds};
use crate::table::Table;

/// How many lines of a daemon's log are shown when a step fails.
const LOG_LINES: usize = 8;

/// A step that held.
struct Shown {
    number: usize,
    title: &'static str,
    evidence: String,
    took: Duration,
}

/// Runs everything. Whether every step held.
pub fn run<S: Scene>(screen: &Screen, keep: bool) -> Result<bool> {
    let begun = Instant::now();
    screen.title(S::TITLE);
    screen.progress("making two nodes");
    let mut stage = S::build(keep).inspect_err(|_| mesh_lab::rest_if_interrupted())?;
    let mut shown = Vec::new();
    let mut started = begun;
    for (step, number) in S::STEPS.iter().zip(1..) {
        screen.step(number, step.title);
        match (step.show)(&mut stage, screen) {
            Ok(evidence) => {
                let took = started.elapsed();
                screen.holds(&evidence, took);
                shown.push(Shown { number, title: step.title, evidence, took });
            }
            Err(error) => {
                mesh_lab::rest_if_interrupted();
                screen.fails(number, &reason(&error));
                last_words(screen, &stage);
                stage.last_words(screen);
                stage.take_down()?;
                screen.say("everything was removed again");
                return Ok(false);
            }
        }
        started = Instant::now();
    }
    summary(screen, &shown);
    if keep {
        stage.say_kept(screen)?;
    } else {
        screen.progress("removing everything");
        stage.take_down()?;
        screen.write(&format!(
            "All {} steps held, in {}. Nothing was left behind.",
            shown.len(),
            seconds(begun.elapsed())
        ));
    }
    Ok(true)
}

fn summary(screen: &Screen, shown: &[Shown]) {
    screen.write("");
    let mut table = Table::new(["", "step", "shown by", "time"]).numbers(&[3]);
    for Shown { number, title, evidence, took } in shown {
        let subject = title.split([':', ',']).next().unwrap_or(title);
        table.row([screen.tick().to_owned(), format!("{number} {subject}"), evidence.clone(), seconds(*took)]);
    }
    screen.table(&table);
    screen.write("");
}

/// The ends of the daemons' logs, but for the lines of single connections.
fn last_words(screen: &Screen, stage: &impl Scene) {
    for daemon in stage.daemons() {
        let log = daemon.logs();
        let lines: Vec<_> = log.lines().filter(|line| !line.contains("\"target\":\"access\"")).collect();
        screen.say(format!("the end of the log of mesh-node on {}:", daemon.node().name()));
        lines[lines.len().saturating_sub(LOG_LINES)..].iter().for_each(|line| screen.quote(line));
    }
}
