//! Quantities (`500m`, `1Gi`) as apimachinery's resource.Quantity reads, compares and writes them.
//!
//! Numbers of more than 38 digits are refused where Kubernetes takes any number.

use std::cmp::Ordering;

/// What isn't a number with a suffix (resource.ErrFormatWrong).
pub const WRONG_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
/// resource.ErrNumeric
const WRONG_NUMBER: &str = "unable to parse numeric part of quantity";
/// resource.ErrSuffix
const WRONG_SUFFIX: &str = "unable to parse quantity's suffix";
/// Digits that are sure to fit an i64.
const I64_DIGITS: i32 = 18;
/// Smallest power of ten that is kept.
const NANO: i32 = -9;
/// Powers of ten beyond which a quantity is refused here.
const MAX_POWER: i32 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    DecimalExponent,
    BinarySi,
    DecimalSi,
}

/// A quantity.
#[derive(Clone, Debug)]
pub struct Quantity {
    /// The number is `unscaled * 10^power`.
    unscaled: i128,
    power: i32,
    format: Format,
    /// The text that it was read from, where that is kept as it is.
    text: Option<String>,
}

struct Parts<'a> {
    positive: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, &'static str> {
    let (positive, rest) = match text.as_bytes().first() {
        Some(b'-') => (false, &text[1..]),
        Some(b'+') => (true, &text[1..]),
        _ => (true, text),
    };
    let rest = rest.trim_start_matches('0');
    if rest.is_empty() {
        return Ok(Parts { positive, whole: "0", fraction: "", suffix: "" });
    }
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = rest.split_at(digits(rest));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let letters = suffix.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let tail = &suffix[letters..];
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if !tail.bytes().all(|b| b.is_ascii_digit()) {
        return Err(WRONG_FORMAT);
    }
    Ok(Parts { positive, whole: if whole.is_empty() { "0" } else { whole }, fraction, suffix })
}

/// Base and power of a suffix, and the format that it means.
fn interpret(suffix: &str) -> Option<(u32, i32, Format)> {
    let decimal = |power| Some((10, power, Format::DecimalSi));
    let binary = |power| Some((2, power, Format::BinarySi));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let power = suffix.strip_prefix(['e', 'E'])?.parse::<i64>().ok()?;
            Some((10, i32::try_from(power).ok()?, Format::DecimalExponent))
        }
    }
}

fn power_of_ten(power: i32) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(power).ok()?)
}

impl Quantity {
    /// Reads a quantity (resource.ParseQuantity).
    ///
    /// # Errors
    /// If it isn't one, in the words of the original.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err(WRONG_FORMAT);
        }
        if text == "0" {
            return Ok(Self { unscaled: 0, power: 0, format: Format::DecimalSi, text: Some(text.to_owned()) });
        }
        let parts = split(text)?;
        let (base, power, format) = interpret(parts.suffix).ok_or(WRONG_SUFFIX)?;
        if power.abs() > MAX_POWER {
            return Err(WRONG_NUMBER);
        }
        let digits = format!("{}{}", parts.whole, parts.fraction);
        let (whole, fraction) = (length(parts.whole), length(parts.fraction));
        let room = match format {
            Format::BinarySi if fraction == 0 => 15 - whole - power * 3 / 10 - 1,
            Format::BinarySi => -1,
            Format::DecimalExponent | Format::DecimalSi => I64_DIGITS - whole - fraction,
        };
        let factor: i128 = if base == 2 { 1 << power } else { 1 };
        let scale = if base == 2 { 0 } else { power } - fraction;
        let value: i128 = digits.parse().map_err(|_| WRONG_NUMBER)?;
        let amount = value.checked_mul(factor).ok_or(WRONG_NUMBER)?;
        let signed = if parts.positive { amount } else { -amount };
        if room >= 0 && scale >= NANO {
            let kept = match format {
                Format::BinarySi => power % 10 == 0 && value & 7 != 0,
                Format::DecimalExponent | Format::DecimalSi => {
                    scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0')
                }
            };
            return Ok(Self { unscaled: signed, power: scale, format, text: kept.then(|| text.to_owned()) });
        }
        let (mut amount, mut power, mut format) = (amount, scale, format);
        if power < NANO {
            // Rounded away from zero; what is below half of the smallest power is one of it.
            let divisor = power_of_ten(NANO - power);
            amount = divisor.map_or_else(|| i128::from(amount != 0), |divisor| div_up(amount, divisor));
            power = NANO;
        }
        let unit = power_of_ten(-power.min(0)).unwrap_or(1);
        if format == Format::BinarySi && amount > i128::from(i64::MAX).saturating_mul(unit) {
            (amount, power) = (i64::MAX.into(), 0);
        }
        if format == Format::BinarySi && amount != 0 && amount < unit {
            format = Format::DecimalSi;
        }
        Ok(Self { unscaled: if parts.positive { amount } else { -amount }, power, format, text: None })
    }

    /// Rounds up to thousandths, as resource lists are (SetDefaults_ResourceList).
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        match power_of_ten(-3 - self.power) {
            Some(divisor) if self.power < -3 => {
                let magnitude = div_up(self.unscaled.abs(), divisor);
                Self { unscaled: magnitude * self.unscaled.signum(), power: -3, text: None, ..self }
            }
            _ => self,
        }
    }

    /// Compares the numbers.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let sign = self.unscaled.signum().cmp(&other.unscaled.signum());
        if sign != Ordering::Equal || self.unscaled == 0 {
            return sign;
        }
        let power = self.power.min(other.power);
        let scaled = |one: &Self| power_of_ten(one.power - power).and_then(|factor| one.unscaled.checked_mul(factor));
        match (scaled(self), scaled(other)) {
            (Some(one), Some(another)) => one.cmp(&another),
            // One that doesn't fit is the greater in size.
            (None, _) if self.unscaled > 0 => Ordering::Greater,
            (None, _) => Ordering::Less,
            (_, None) if self.unscaled > 0 => Ordering::Less,
            (_, None) => Ordering::Greater,
        }
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn sign(&self) -> i128 {
        self.unscaled.signum()
    }

    /// Whether it is a whole number when its thousandths are rounded up.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let milli = self.clone().rounded_to_milli();
        milli.power >= 0 || power_of_ten(-milli.power).is_some_and(|unit| milli.unscaled % unit == 0)
    }

    /// The sum; the first's format is kept. None if it doesn't fit.
    #[must_use]
    pub fn sum(&self, other: &Self) -> Option<Self> {
        let power = self.power.min(other.power);
        let scaled = |one: &Self| power_of_ten(one.power - power).and_then(|factor| one.unscaled.checked_mul(factor));
        Some(Self { unscaled: scaled(self)?.checked_add(scaled(other)?)?, power, format: self.format, text: None })
    }

    fn canonical(&self) -> String {
        if self.unscaled == 0 {
            return "0".to_owned();
        }
        let mut format = self.format;
        let mut whole = None;
        if format == Format::BinarySi {
            let unit = power_of_ten(-self.power.min(0)).unwrap_or(1);
            let factor = power_of_ten(self.power.max(0)).unwrap_or(1);
            let small = self.unscaled.abs() < 1024_i128.saturating_mul(unit);
            whole = (!small && self.unscaled % unit == 0).then(|| self.unscaled / unit * factor);
            if whole.is_none() {
                format = Format::DecimalSi;
            }
        }
        if let Some(mut number) = whole {
            let mut suffix = 0;
            while number % 1024 == 0 && suffix < 6 {
                number /= 1024;
                suffix += 1;
            }
            return format!("{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][suffix]);
        }
        let (mut number, mut power) = (self.unscaled, self.power);
        while number % 10 == 0 {
            number /= 10;
            power += 1;
        }
        while power % 3 != 0 {
            number *= 10;
            power -= 1;
        }
        let suffix = match (format, power) {
            (_, 0) => String::new(),
            (Format::DecimalExponent, power) => format!("e{power}"),
            (_, power) => usize::try_from((power + 9) / 3)
                .ok()
                .and_then(|at| ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"].get(at))
                .map(|suffix| (*suffix).to_owned())
                .unwrap_or_default(),
        };
        format!("{number}{suffix}")
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => f.write_str(&self.canonical()),
        }
    }
}

fn length(text: &str) -> i32 {
    i32::try_from(text.len()).unwrap_or(i32::MAX / 4)
}

fn div_up(amount: i128, divisor: i128) -> i128 {
    amount / divisor + i128::from(amount % divisor != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        Quantity::parse(text).map_or_else(str::to_owned, |quantity| quantity.to_string())
    }

    #[test]
    fn are_written_canonically() {
        // Most cases are in golden/pods.json.
        for (text, canonical) in [
            ("1024Mi", "1Gi"),
            ("0.5", "500m"),
            ("1.23456789", "1234567890n"),
            ("0.1Ki", "102400m"),
            ("12e-1", "1200e-3"),
            ("100Ei", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775808"),
            ("-1.5Gi", "-1536Mi"),
            ("0.0000000001", "1n"),
        ] {
            assert_eq!(written(text), canonical, "{text}");
        }
        assert_eq!((written("1x").as_str(), written("1e").as_str()), (WRONG_FORMAT, WRONG_SUFFIX));
        assert_eq!(Quantity::parse("0.0001").unwrap().rounded_to_milli().to_string(), "1m");
    }

    #[test]
    fn compare_by_number() {
        let quantity = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(quantity("1Gi").compare(&quantity("1G")), Ordering::Greater);
        assert_eq!(quantity("1000m").compare(&quantity("1")), Ordering::Equal);
        assert_eq!(quantity("-1E").compare(&quantity("1n")), Ordering::Less);
        assert!(quantity("2").is_whole() && !quantity("1500m").is_whole());
        assert_eq!(quantity("1500m").sum(&quantity("1")).unwrap().to_string(), "2500m");
    }
}
