//! Times as Go parses and Kubernetes writes them: RFC 3339 to the second (`Time`) or to the microsecond (`MicroTime`).
//!
//! Never knows what time it is.

use crate::field_error::go_quote;

/// How exact a time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// metav1.Time.
    Seconds,
    /// metav1.MicroTime, which is read with exactly six digits.
    Micros,
}

const SECONDS_LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const MICROS_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Reads a time and writes it again in UTC. None is Go's zero time, which is written as null.
///
/// # Errors
/// The words of Go's time.Parse.
pub fn normalise(text: &str, precision: Precision) -> Result<Option<String>, String> {
    let layout = if precision == Precision::Seconds { SECONDS_LAYOUT } else { MICROS_LAYOUT };
    let mut reader = Reader { text, rest: text, layout };
    let year = reader.digits(4, "2006")?;
    reader.literal('-')?;
    let month = reader.digits(2, "01")?;
    reader.within("month", month, 1, 12)?;
    reader.literal('-')?;
    let day = reader.digits(2, "02")?;
    reader.literal('T')?;
    let hour = reader.digits(2, "15")?;
    reader.within("hour", hour, 0, 23)?;
    reader.literal(':')?;
    let minute = reader.digits(2, "04")?;
    reader.within("minute", minute, 0, 59)?;
    reader.literal(':')?;
    let second = reader.digits(2, "05")?;
    reader.within("second", second, 0, 59)?;
    let micros = reader.fraction(precision)?;
    let offset = reader.zone()?;
    if !reader.rest.is_empty() {
        return Err(format!("parsing time {}: extra text: {}", go_quote(text), go_quote(reader.rest)));
    }
    reader.within("day", day, 1, days_in(year, month))?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    if seconds == days_from_civil(1, 1, 1) * 86_400 && micros == 0 {
        return Ok(None);
    }
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let rest = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let time = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    Ok(Some(match precision {
        Precision::Seconds => format!("{time}Z"),
        Precision::Micros => format!("{time}.{micros:06}Z"),
    }))
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    layout: &'static str,
}

impl Reader<'_> {
    fn cannot(&self, rest: &str, element: &str) -> String {
        format!(
            "parsing time {} as \"{}\": cannot parse {} as \"{element}\"",
            go_quote(self.text),
            self.layout,
            go_quote(rest)
        )
    }

    fn digits(&mut self, count: usize, element: &str) -> Result<i64, String> {
        match self.rest.get(..count) {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                self.rest = &self.rest[count..];
                // At most four digits.
                Ok(digits.parse().unwrap_or_default())
            }
            _ => Err(self.cannot(self.rest, element)),
        }
    }

    fn literal(&mut self, literal: char) -> Result<(), String> {
        match self.rest.strip_prefix(literal) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(self.cannot(self.rest, &literal.to_string())),
        }
    }

    fn within(&self, what: &str, value: i64, low: i64, high: i64) -> Result<(), String> {
        if (low..=high).contains(&value) {
            Ok(())
        } else {
            Err(format!("parsing time {}: {what} out of range", go_quote(self.text)))
        }
    }

    /// Microseconds.
    fn fraction(&mut self, precision: Precision) -> Result<i64, String> {
        let digits = self.rest.strip_prefix('.').map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
        match precision {
            Precision::Seconds if digits == 0 => Ok(0),
            Precision::Seconds => {
                self.rest = &self.rest[1 + digits..];
                Ok(0)
            }
            Precision::Micros if digits < 6 => Err(self.cannot(self.rest, ".000000")),
            Precision::Micros => {
                let micros = self.rest[1..7].parse().unwrap_or_default();
                self.rest = &self.rest[7..];
                Ok(micros)
            }
        }
    }

    /// Seconds east of UTC.
    fn zone(&mut self) -> Result<i64, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let wrong = self.cannot(self.rest, "Z07:00");
        let bytes = self.rest.as_bytes();
        let well_formed = bytes.len() >= 6
            && matches!(bytes[0], b'+' | b'-')
            && bytes[3] == b':'
            && [1, 2, 4, 5].iter().all(|i| bytes[*i].is_ascii_digit());
        if !well_formed {
            return Err(wrong);
        }
        let number = |from: usize| i64::from(bytes[from] - b'0') * 10 + i64::from(bytes[from + 1] - b'0');
        let (hours, minutes) = (number(1), number(4));
        self.within("time zone offset hour", hours, 0, 24)?;
        self.within("time zone offset minute", minutes, 0, 60)?;
        let sign = if bytes[0] == b'-' { -1 } else { 1 };
        self.rest = &self.rest[6..];
        Ok(sign * (hours * 3600 + minutes * 60))
    }
}

/// Days of a month.
pub(crate) fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_utc() {
        let seconds = |text: &str| normalise(text, Precision::Seconds);
        assert_eq!(seconds("2026-01-02T03:04:05Z"), Ok(Some("2026-01-02T03:04:05Z".to_owned())));
        assert_eq!(seconds("2026-01-01T00:00:00.999+02:00"), Ok(Some("2025-12-31T22:00:00Z".to_owned())));
        assert_eq!(seconds("2024-02-29T23:59:59-00:01"), Ok(Some("2024-03-01T00:00:59Z".to_owned())));
        assert_eq!(seconds("0001-01-01T00:00:00Z"), Ok(None));
        let micros = normalise("2026-01-02T05:04:05.123456+02:00", Precision::Micros);
        assert_eq!(micros, Ok(Some("2026-01-02T03:04:05.123456Z".to_owned())));
    }

    #[test]
    fn errors_are_worded_like_go_s() {
        let seconds = |text: &str| normalise(text, Precision::Seconds).unwrap_err();
        let layout = "as \"2006-01-02T15:04:05Z07:00\": cannot parse";
        assert_eq!(seconds("x"), format!("parsing time \"x\" {layout} \"x\" as \"2006\""));
        assert_eq!(seconds("2026-13-01T00:00:00Z"), "parsing time \"2026-13-01T00:00:00Z\": month out of range");
        assert_eq!(seconds("2026-02-30T00:00:00Z"), "parsing time \"2026-02-30T00:00:00Z\": day out of range");
        assert_eq!(seconds("2026-02-03"), format!("parsing time \"2026-02-03\" {layout} \"\" as \"T\""));
        assert_eq!(seconds("2026-02-03T00:00:00Zz"), "parsing time \"2026-02-03T00:00:00Zz\": extra text: \"z\"");
    }
}
