//! Several daemons, asked at once.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::daemon::Daemon;
use crate::output::note;

/// Daemons that are asked at once: each is a connection to the API server and to a kubelet.
const AT_ONCE: usize = 16;

/// One to ask: a node's daemon, or a waypoint's pod.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The node, or the pod.
    pub(crate) name: String,
    /// The way to it, or why there is none.
    pub(crate) daemon: Result<Daemon, String>,
}

/// What one of several said.
#[derive(Debug)]
pub(crate) struct Said<T> {
    /// The node, or the pod.
    pub(crate) name: String,
    /// Its answer, or why there is none.
    pub(crate) answer: anyhow::Result<T>,
}

/// Asks all, some at once; the answers are in the order of the targets.
pub(crate) async fn ask<T, F>(targets: Vec<Target>, question: impl Fn(Daemon) -> F) -> Vec<Said<T>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut said: Vec<Said<T>> = Vec::with_capacity(targets.len());
    let mut asked = JoinSet::new();
    for (index, target) in targets.into_iter().enumerate() {
        let answer = match target.daemon {
            Ok(daemon) => {
                let (places, answer) = (places.clone(), question(daemon));
                asked.spawn(async move {
                    let _place = places.acquire_owned().await;
                    (index, answer.await)
                });
                Err(anyhow::anyhow!("it was not asked"))
            }
            Err(why) => Err(anyhow::anyhow!(why)),
        };
        said.push(Said { name: target.name, answer });
    }
    while let Some(answered) = asked.join_next().await {
        // A question that panicked has said so; its target keeps that it was not asked.
        let Ok((index, answer)) = answered else { continue };
        if let Some(said) = said.get_mut(index) {
            said.answer = answer;
        }
    }
    said
}

/// The answer of the only one that was asked.
pub(crate) fn only<T>(said: Vec<Said<T>>) -> anyhow::Result<T> {
    match said.into_iter().next() {
        Some(said) => said.answer,
        None => anyhow::bail!("there is nobody to ask"),
    }
}

/// For programs: an entry each, under its name as `key`, with what was said or why nothing was.
pub(crate) fn entries<T: Serialize>(said: &[Said<T>], key: &str) -> anyhow::Result<Vec<Value>> {
    let entry = |said: &Said<T>| {
        let mut entry = match &said.answer {
            Ok(answer) => serde_json::to_value(answer)?,
            Err(error) => json!({"unreachable": format!("{error:#}")}),
        };
        entry[key] = said.name.as_str().into();
        Ok(entry)
    };
    said.iter().map(entry).collect()
}

/// Tells of those that have not answered, a line each. An error where none has.
pub(crate) fn tell_unreachable<T>(said: &[Said<T>]) -> anyhow::Result<Outcome> {
    let silent: Vec<_> = said.iter().filter_map(|said| Some((&said.name, said.answer.as_ref().err()?))).collect();
    if let [(name, error)] = silent[..]
        && said.len() == 1
    {
        anyhow::bail!("{name}: {error:#}");
    }
    for (name, error) in &silent {
        note(&format!("{name}: no answer: {error:#}"));
    }
    anyhow::ensure!(silent.len() < said.len(), "none of {} answers", said.len());
    Ok(if silent.is_empty() { Outcome::Good } else { Outcome::Bad })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(number: usize) -> Target {
        Target { name: format!("node-{number}"), daemon: Ok(Daemon::at(format!("/nowhere/{number}").into())) }
    }

    #[tokio::test]
    async fn answers_are_in_the_order_of_the_targets_and_so_many_at_once() {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut targets: Vec<_> = (0..3 * AT_ONCE).map(target).collect();
        targets[1].daemon = Err("its pod is Pending".into());
        let said = ask(targets, |daemon| {
            let places = places.clone();
            async move {
                // More at once than there may be would find no place.
                let _place = places.try_acquire()?;
                tokio::task::yield_now().await;
                Ok(daemon.name())
            }
        })
        .await;
        for (number, said) in said.iter().enumerate() {
            assert_eq!(said.name, format!("node-{number}"));
            match number {
                1 => assert_eq!(said.answer.as_ref().unwrap_err().to_string(), "its pod is Pending"),
                _ => assert!(said.answer.as_ref().unwrap().ends_with(&format!("/{number}")), "{said:?}"),
            }
        }
        assert_eq!(tell_unreachable(&said).unwrap(), Outcome::Bad);
        assert!(tell_unreachable(&said[1..2]).is_err(), "none of those asked has answered");
    }
}
