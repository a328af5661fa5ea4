//! Times and durations as kubectl writes them.

use jiff::Timestamp;

/// How long ago a timestamp was, `5m30s`; `<unknown>` without one.
pub fn age(timestamp: Option<&str>, now: Timestamp) -> String {
    match timestamp.and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(at) => human(now.as_second() - at.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// Seconds with the precision that matters at their size.
pub fn human(seconds: i64) -> String {
    let (minute, hour, day) = (60, 3600, 86_400);
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    if seconds < 2 * minute {
        format!("{seconds}s")
    } else if seconds < 10 * minute {
        two(seconds / minute, "m", seconds % minute, "s")
    } else if seconds < 3 * hour {
        format!("{}m", seconds / minute)
    } else if seconds < 8 * hour {
        two(seconds / hour, "h", seconds % hour / minute, "m")
    } else if seconds < 2 * day {
        format!("{}h", seconds / hour)
    } else if seconds < 8 * day {
        two(seconds / day, "d", seconds % day / hour, "h")
    } else if seconds < 2 * 365 * day {
        format!("{}d", seconds / day)
    } else if seconds < 8 * 365 * day {
        two(seconds / (365 * day), "y", seconds % (365 * day) / day, "d")
    } else {
        format!("{}y", seconds / (365 * day))
    }
}

/// `Sat, 21 Nov 2026 12:00:00 +0000`, in UTC.
pub fn long(timestamp: &str) -> String {
    match timestamp.parse::<Timestamp>() {
        Ok(at) => at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
        Err(_) => timestamp.to_owned(),
    }
}

/// A duration as Go writes it: `1m30s`, `1.5s`, `200ms`.
pub fn go_duration(duration: std::time::Duration) -> String {
    let whole = duration.as_secs();
    let fraction = |amount: f64, unit: &str| format!("{amount}{unit}");
    match (whole, duration.subsec_nanos()) {
        (0, 0) => "0s".to_owned(),
        (0, nanos) if nanos >= 1_000_000 => fraction(f64::from(nanos) / 1e6, "ms"),
        (0, nanos) if nanos >= 1_000 => fraction(f64::from(nanos) / 1e3, "µs"),
        (0, nanos) => format!("{nanos}ns"),
        (_, nanos) => {
            let seconds = fraction((whole % 60) as f64 + f64::from(nanos) / 1e9, "s");
            match (whole / 3600, whole / 60 % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// Parses `1h30m`, `90s`, `0`, as Go does.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let bad = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(std::time::Duration::ZERO);
    }
    let mut total = 0.0;
    let mut rest = text;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(bad()),
        };
        total += number * unit;
        rest = &rest[unit_end..];
    }
    std::time::Duration::try_from_secs_f64(total).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn ages_read_like_kubectls() {
        let cases = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 300, "3h5m"),
            (47 * 3600, "47h"),
            (2 * 86_400, "2d"),
            (2 * 86_400 + 3700, "2d1h"),
            (100 * 86_400, "100d"),
            (800 * 86_400, "2y70d"),
            (-5, "<invalid>"),
            (-1, "0s"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn times_and_durations() {
        assert_eq!(long("2026-11-21T12:00:00Z"), "Sat, 21 Nov 2026 12:00:00 +0000");
        assert_eq!(duration("1h30m").unwrap().as_secs(), 5400);
        assert_eq!(duration("1.5s").unwrap().as_millis(), 1500);
        for text in ["0s", "5s", "1m0s", "1h0m30s", "1.5s", "200ms"] {
            assert_eq!(go_duration(duration(text).unwrap()), text);
        }
        for bad in ["", "5", "x", "5x", "m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
