//! How a moment is written (strftime(3), with Envoy's `%3f` for a fraction).

/// A part of a moment, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimePart {
    /// Text between.
    Text(Box<str>),
    /// The year, four digits.
    Year,
    /// The month, two digits.
    Month,
    /// The day of the month, two digits.
    Day,
    /// The hour, from 00 to 23.
    Hour,
    /// The minute.
    Minute,
    /// The second.
    Second,
    /// So many digits of the fraction of a second, from 1 to 9.
    Fraction(u8),
    /// Seconds since the epoch.
    Epoch,
    /// The month's name in English, three letters.
    MonthName,
    /// What it is ahead of UTC: nothing.
    Offset,
    /// The name of the zone.
    Zone,
}

/// The parts of a form; none where one of them is unknown.
pub(super) fn parts(form: &str) -> Option<Vec<TimePart>> {
    let mut parts = Vec::new();
    let mut rest = form;
    while let Some((before, after)) = rest.split_once('%') {
        text(before, &mut parts);
        let mut letters = after.chars();
        let letter = letters.next()?;
        rest = letters.as_str();
        match letter {
            'Y' => parts.push(TimePart::Year),
            'm' => parts.push(TimePart::Month),
            'd' => parts.push(TimePart::Day),
            'H' => parts.push(TimePart::Hour),
            'M' => parts.push(TimePart::Minute),
            'S' => parts.push(TimePart::Second),
            's' => parts.push(TimePart::Epoch),
            'b' => parts.push(TimePart::MonthName),
            'z' => parts.push(TimePart::Offset),
            'Z' => parts.push(TimePart::Zone),
            'f' => parts.push(TimePart::Fraction(9)),
            'F' => together([TimePart::Year, TimePart::Month, TimePart::Day], "-", &mut parts),
            'T' => together([TimePart::Hour, TimePart::Minute, TimePart::Second], ":", &mut parts),
            '%' => text("%", &mut parts),
            digits @ '1'..='9' => {
                rest = rest.strip_prefix('f')?;
                parts.push(TimePart::Fraction(u8::try_from(digits.to_digit(10)?).ok()?));
            }
            _ => return None,
        }
    }
    text(rest, &mut parts);
    Some(parts)
}

fn together([one, two, three]: [TimePart; 3], between: &str, parts: &mut Vec<TimePart>) {
    let between = || TimePart::Text(between.into());
    parts.extend([one, between(), two, between(), three]);
}

fn text(text: &str, parts: &mut Vec<TimePart>) {
    if !text.is_empty() {
        parts.push(TimePart::Text(text.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_as_strftime_has_them() {
        use TimePart::{Day, Fraction, Hour, Minute, Month, Offset, Second, Text, Year};
        let t = |text: &str| Text(text.into());
        assert_eq!(parts("%F").unwrap(), [Year, t("-"), Month, t("-"), Day]);
        assert_eq!(
            parts("at %T.%3f%z").unwrap(),
            [t("at "), Hour, t(":"), Minute, t(":"), Second, t("."), Fraction(3), Offset]
        );
        for unknown in ["%Q", "%", "%3", "%0f", "%3s"] {
            assert_eq!(parts(unknown), None, "{unknown}");
        }
    }
}
