//! Durations as Istio's kinds and the Gateway API write them.

use std::time::Duration;

use super::Flaw;

/// Longest that anything may be asked to take. Beyond it, somebody has mistaken the unit.
const MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads `1h30m`, `2.5s`, `100ms`: Go's notation (`time.ParseDuration`), without a sign.
pub(crate) fn duration(text: &str, field: impl Into<String>) -> Result<Duration, Flaw> {
    let read = parse(text).filter(|duration| *duration <= MAX);
    read.ok_or_else(|| Flaw::value(field, format!("{text:?} is no duration such as 1s, 250ms or 1m30s")))
}

fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_length = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_length);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let ms = |text| parse(text).map(|duration| duration.as_millis());
        assert_eq!(ms("5s"), Some(5_000));
        assert_eq!(ms("1m30s"), Some(90_000));
        assert_eq!(ms("1.5h"), Some(5_400_000));
        assert_eq!(ms("250ms"), Some(250));
        assert_eq!(ms("0"), Some(0));
        for text in ["", "5", "s", "-1s", "1x", "1..5s", "5 s", "1e3s"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert!(duration("99999999h", "x").is_err());
    }
}
