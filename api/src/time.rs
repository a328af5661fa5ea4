//! Times as objects carry them, and durations as kubectl prints them.

use jiff::Timestamp;
use serde_json::Value;

/// `2026-01-02T15:04:05Z`.
pub fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-01-02T15:04:05.000000Z`.
pub fn micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads a time of either precision.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Reads a time out of a JSON value.
pub fn of(value: &Value) -> Option<Timestamp> {
    parse(value.as_str()?)
}

/// How long ago something was, as table cells say it; `<unknown>` for an absent time.
pub fn age(value: &Value, now: Timestamp) -> String {
    match of(value) {
        None => "<unknown>".into(),
        Some(then) => human_duration(now.as_second() - then.as_second()),
    }
}

/// kubectl's short duration: `5s`, `2m5s`, `3h4m`, `2d3h`, `12d`, `2y30d`.
pub fn human_duration(seconds: i64) -> String {
    // A clock may be slightly ahead of another.
    match seconds {
        i64::MIN..-1 => return "<invalid>".into(),
        -1..0 => return "0s".into(),
        _ => {}
    }
    let two = |a: i64, x: &str, b: i64, y: &str| if b == 0 { format!("{a}{x}") } else { format!("{a}{x}{b}{y}") };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => two(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () if days < 2920 => two(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10799, "179m"),
            (10800, "3h"),
            (11100, "3h5m"),
            (28800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (66_000_000, "2y33d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(seconds), text);
        }
    }

    #[test]
    fn texts() {
        let time: Timestamp = "2026-01-02T15:04:05.123456789Z".parse().unwrap();
        assert_eq!(seconds(time), "2026-01-02T15:04:05Z");
        assert_eq!(micro(time), "2026-01-02T15:04:05.123456Z");
    }
}
