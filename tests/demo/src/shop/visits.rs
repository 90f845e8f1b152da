//! Requests to product by curl, and who answered them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_lab::Place;
use serde_json::Value;

/// The longest that a batch of requests may take.
const LIMIT: Duration = Duration::from_secs(60);

/// One answer.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    /// The response's status.
    pub(super) status: u16,
    /// How long it took, in seconds.
    pub(super) seconds: f64,
    /// The version that answered, where the answer says so.
    pub(super) version: Option<String>,
}

/// Asks product `count` times for a price, from a place; `more` are curl's arguments.
pub(super) fn ask(place: &impl Place, count: usize, more: &[&str]) -> Result<Vec<Visit>> {
    let url = format!("http://product.shop:8080/products?item=[1-{count}]");
    let mut argv = vec!["curl", "--silent", "--show-error", "--write-out", "\n%{http_code} %{time_total}\n"];
    argv.extend(more);
    argv.push(&url);
    let output = place.exec_within(LIMIT, &argv)?;
    let visits = read(&output.stdout).with_context(|| format!("curl {url}: {output}"))?;
    ensure!(visits.len() == count, "{count} requests, {} answers: {output}", visits.len());
    Ok(visits)
}

/// Bodies, each followed by a line with status and time.
fn read(text: &str) -> Option<Vec<Visit>> {
    let (mut visits, mut version) = (Vec::new(), None);
    for line in text.lines().filter(|line| !line.is_empty()) {
        let answered =
            line.split_once(' ').and_then(|(status, seconds)| Some((status.parse().ok()?, seconds.parse().ok()?)));
        match answered {
            Some((status, seconds)) => visits.push(Visit { status, seconds, version: version.take() }),
            None => version = version_of(line),
        }
    }
    Some(visits).filter(|visits| !visits.is_empty())
}

fn version_of(body: &str) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    body["hops"][0]["version"].as_str().map(str::to_owned)
}

/// How many of them are as asked.
pub(super) fn count(visits: &[Visit], is: impl Fn(&Visit) -> bool) -> usize {
    visits.iter().filter(|visit| is(visit)).count()
}

/// How many were answered by a version.
pub(super) fn by_version(visits: &[Visit], version: &str) -> usize {
    count(visits, |visit| visit.version.as_deref() == Some(version))
}

/// How many got a status.
pub(super) fn by_status(visits: &[Visit], status: u16) -> usize {
    count(visits, |visit| visit.status == status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_whatever_their_bodies() {
        let text = "{\"hops\":[{\"version\":\"v2\"}]}\n200 0.010\n\n503 0.002\nfault filter abort\n418 0.001\n";
        let visits = read(text).expect("three answers");
        let said: Vec<_> = visits.iter().map(|visit| (visit.status, visit.version.as_deref())).collect();
        assert_eq!(said, [(200, Some("v2")), (503, None), (418, None)]);
        assert!(read("").is_none());
    }
}
