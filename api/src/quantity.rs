//! Quantities such as `100m`, `1.5Gi` or `2e3`: exact decimals down to nano, in upstream's canonical form.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Sub};

const NANO: i128 = 1_000_000_000;
const MAX: i128 = i64::MAX as i128 * NANO;

/// Which suffixes a quantity is printed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// `Ki`, `Mi`, …
    BinarySi,
    /// `m`, `k`, `M`, …
    #[default]
    DecimalSi,
    /// `e3`.
    DecimalExponent,
}

/// Why a text is no quantity; upstream's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The shape is wrong.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// The digits are no number.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
}

/// A quantity.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Zero.
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    /// A whole number.
    pub const fn whole(value: i64, format: Format) -> Self {
        Self { nanos: value as i128 * NANO, format }
    }

    /// Thousandths.
    pub const fn milli(value: i64) -> Self {
        Self { nanos: value as i128 * (NANO / 1000), format: Format::DecimalSi }
    }

    /// Reads a quantity.
    ///
    /// # Errors
    /// If the text is none.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            None => return Err(QuantityError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, suffix) = rest.split_at(end);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if digits.is_empty() || fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Numeric);
        }
        let (multiplier, exponent, format) = scale(suffix)?;
        let magnitude = magnitude(whole, fraction, multiplier, exponent);
        Ok(Self { nanos: if negative { -magnitude } else { magnitude }, format })
    }

    /// Reads a JSON value, text or number.
    pub fn from_value(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::String(text) => Self::parse(text).ok(),
            serde_json::Value::Number(n) => Self::parse(&n.to_string()).ok(),
            _ => None,
        }
    }

    /// The value rounded up to a whole number.
    pub fn value(&self) -> i64 {
        ceil(self.nanos, NANO)
    }

    /// The value in thousandths, rounded up.
    pub fn milli_value(&self) -> i64 {
        ceil(self.nanos, NANO / 1000)
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// How it is printed.
    pub fn format(&self) -> Format {
        self.format
    }
}

fn ceil(nanos: i128, unit: i128) -> i64 {
    // Upstream rounds away from zero.
    let whole = nanos / unit + (nanos % unit).signum();
    i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
}

/// The factor as multiplier and power of ten.
fn scale(suffix: &str) -> Result<(i128, i32, Format), QuantityError> {
    let binary = |power: u32| Ok((1i128 << (10 * power), 0, Format::BinarySi));
    let decimal = |exponent: i32| Ok((1, exponent, Format::DecimalSi));
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
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        other => exponent(other),
    }
}

fn exponent(suffix: &str) -> Result<(i128, i32, Format), QuantityError> {
    let shaped = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let shaped = shaped.strip_prefix(['-', '+']).unwrap_or(shaped);
    if !shaped.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let power: i32 = digits.parse().map_err(|_| QuantityError::Suffix)?;
    Ok((1, power, Format::DecimalExponent))
}

/// Nanos, rounded up and capped.
fn magnitude(whole: &str, fraction: &str, multiplier: i128, exponent: i32) -> i128 {
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    let shift = i64::from(exponent) + 9 - fraction.len() as i64;
    // More than 29 digits of nanos are above the cap whatever they are.
    if digits.len() as i64 + shift > 29 {
        return MAX;
    }
    let keep = digits.len().min(37);
    let shift = shift + (digits.len() - keep) as i64;
    let lost = digits[keep..].bytes().any(|b| b != b'0');
    let number: i128 = digits[..keep].parse().unwrap_or(i128::MAX);
    let (number, power) = match multiplier {
        1 => (number, shift),
        _ => match number.checked_mul(multiplier) {
            Some(product) => (product, shift),
            // So many digits and a binary suffix: drop digits far below nano first.
            None => (number / 1_000_000_000_000_000_000 * multiplier, shift + 18),
        },
    };
    let nanos = if power >= 0 {
        u32::try_from(power).ok().and_then(|p| 10i128.checked_pow(p)).and_then(|f| number.checked_mul(f)).unwrap_or(MAX)
    } else {
        match u32::try_from(-power).ok().and_then(|p| 10i128.checked_pow(p)) {
            Some(divisor) => number / divisor + i128::from(number % divisor != 0 || lost),
            None => 1,
        }
    };
    nanos.min(MAX)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let binary = self.format == Format::BinarySi && self.is_whole() && self.nanos.abs() >= 1024 * NANO;
        if binary {
            let mut number = self.nanos / NANO;
            let mut power = 0;
            while number % 1024 == 0 && power < 6 {
                number /= 1024;
                power += 1;
            }
            return write!(f, "{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let mut number = self.nanos;
        let mut exponent = -9;
        while number % 1000 == 0 && exponent < 18 {
            number /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (_, 0) => write!(f, "{number}"),
            (Format::DecimalExponent, e) => write!(f, "{number}e{e}"),
            (_, e) => write!(f, "{number}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][(e / 3 + 3) as usize]),
        }
    }
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}
impl Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }
}
impl Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: (self.nanos - other.nanos).clamp(-MAX, MAX), format }
    }
}
impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn canonical_forms() {
        let cases = [
            ("0", "0"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("100Ki", "100Ki"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e1", "120"),
            ("1E", "1E"),
            ("1000k", "1M"),
            (".5", "500m"),
            ("5.", "5"),
            ("+1", "1"),
            ("-1.5", "-1500m"),
            ("0.1n", "1n"),
            ("1.0000000001", "1000000001n"),
            ("9223372036854775808", "9223372036854775807"),
            ("100000E", "9223372036854775807"),
            ("123456789Mi", "123456789Mi"),
        ];
        for (text, canonical) in cases {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn errors() {
        let cases = [
            ("", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("1Zi", QuantityError::Format),
            ("1mm", QuantityError::Suffix),
            ("1 Gi", QuantityError::Format),
            (".", QuantityError::Numeric),
        ];
        for (text, error) in cases {
            assert_eq!(Quantity::parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn arithmetic() {
        let q = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!((q("100m") + q("1")).to_string(), "1100m");
        assert_eq!((q("1Gi") - q("512Mi")).to_string(), "512Mi");
        assert_eq!(q("1500m").value(), 2);
        assert_eq!(q("0.0001").milli_value(), 1);
        assert!(q("1Gi") > q("1G"));
        assert_eq!([q("1"), q("2")].into_iter().sum::<Quantity>().to_string(), "3");
    }
}
