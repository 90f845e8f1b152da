//! Injected faults: a tenth of all waits, whoever asks for trouble gets half refused.

use anyhow::Result;

use super::{Shop, rule, visits};
use crate::claim::claim;
use crate::screen::Screen;

/// Requests for each count.
const REQUESTS: usize = 200;
/// A tenth of them, and four and a half standard deviations (of 4.2) to either side.
const A_TENTH: std::ops::RangeInclusive<usize> = 1..=39;
/// Half of them, and five standard deviations (of 7) to either side.
const HALF: std::ops::RangeInclusive<usize> = 65..=135;
/// How long the delayed wait, in seconds.
const DELAY: f64 = 1.0;

const RULES: &str = "  - match: [{headers: {x-chaos: {exact: \"yes\"}}}]
    fault: {abort: {percentage: {value: 50}, httpStatus: 418}}
    route: [{destination: {host: product}}]
  - fault: {delay: {percentage: {value: 10}, fixedDelay: 1s}}
    route: [{destination: {host: product}}]
";

pub(super) fn show(shop: &mut Shop, screen: &Screen) -> Result<String> {
    rule::apply(shop, screen, "faults", RULES)?;
    let at_once = ["--parallel", "--parallel-immediate", "--parallel-max", "200"];
    let visits = visits::ask(shop.shopper()?, REQUESTS, &at_once)?;
    let (served, delayed) = (visits::by_status(&visits, 200), visits::count(&visits, |visit| visit.seconds >= DELAY));
    claim(served == REQUESTS, "all to be served, early or late", served)?;
    claim(A_TENTH.contains(&delayed), format!("a tenth of {REQUESTS} to wait"), delayed)?;
    screen.say(format!("{delayed} of {REQUESTS} waited {DELAY} s or more, all were served"));
    let visits = visits::ask(shop.shopper()?, REQUESTS, &["--header", "x-chaos: yes"])?;
    let (aborted, served) = (visits::by_status(&visits, 418), visits::by_status(&visits, 200));
    claim(HALF.contains(&aborted) && aborted + served == REQUESTS, "half of them refused with 418", aborted)?;
    screen.say(format!("with x-chaos: yes, {aborted} of {REQUESTS} were refused with 418, the others served"));
    Ok(format!("{delayed} of {REQUESTS} delayed at 10 %, {aborted} of {REQUESTS} aborted at 50 %"))
}
