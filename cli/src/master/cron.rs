//! Schedules as cron writes them: `minute hour day-of-month month day-of-week`, `@daily` and the like, `@every 1h30m`.

use std::time::Duration;

use jiff::civil::Date;
use jiff::{ToSpan, Zoned};

/// When something is to be done again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At the times that fit.
    Cron(Box<Fields>),
    /// So long after the last time.
    Every(Duration),
}

/// Which minutes, hours, days and months fit, a bit for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Of days of the month and of the week, one that fits is enough if both are restricted.
    either: bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// The rarest times that are possible, 29 February on a certain weekday, come round within 28 years.
const HORIZON: i32 = 29 * 366;

impl std::str::FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(every) = text.strip_prefix("@every ") {
            let every = crate::ctl::time::duration(every.trim())?;
            if every < Duration::from_secs(1) {
                return Err("\"@every\" of less than a second".into());
            }
            return Ok(Self::Every(every));
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let parts: Vec<&str> = fields.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts[..] else {
            return Err(format!(
                "{text:?} is not a schedule: five fields are wanted (minute hour day-of-month month day-of-week), \
                 @hourly, @daily, or @every 6h"
            ));
        };
        let weekday_bits = field(weekdays, 0, 7, &WEEKDAYS)?;
        let fields = Fields {
            minutes: field(minutes, 0, 59, &[])?,
            hours: field(hours, 0, 23, &[])?,
            days: field(days, 1, 31, &[])?,
            months: field(months, 1, 12, &MONTHS)?,
            // Sunday is 0 and 7.
            weekdays: weekday_bits & 0x7f | weekday_bits >> 7,
            either: !days.starts_with('*') && !weekdays.starts_with('*'),
        };
        // 30 February is no day.
        let schedule = Self::Cron(Box::new(fields));
        let some_day = Zoned::now();
        if schedule.next(&some_day).is_none() {
            return Err(format!("{text:?} never comes"));
        }
        Ok(schedule)
    }
}

/// The values that a field lets through: `*`, `5`, `1-5`, `*/15`, `10-50/20`, `mon-fri`, and lists of these.
fn field(text: &str, low: u32, high: u32, names: &[&str]) -> Result<u64, String> {
    let bad = |why: &str| format!("{text:?} in a schedule: {why}");
    let value = |part: &str| {
        let named = names.iter().position(|n| part.eq_ignore_ascii_case(n)).map(|i| i as u32 + low);
        let number = named.or_else(|| part.parse::<u32>().ok()).filter(|n| (low..=high).contains(n));
        number.ok_or_else(|| bad(&format!("{part:?} is not between {low} and {high}")))
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step = step.parse::<u32>().ok().filter(|s| *s > 0);
                (range, step.ok_or_else(|| bad("a step is a number above 0"))?)
            }
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (low, high),
            Some((from, to)) => (value(from)?, value(to)?),
            None if part.contains('/') => (value(range)?, high),
            None => (value(range)?, value(range)?),
        };
        if from > to {
            return Err(bad("the range ends before it begins"));
        }
        for n in (from..=to).step_by(step as usize) {
            bits |= 1 << n;
        }
    }
    Ok(bits)
}

fn has(bits: u64, n: i8) -> bool {
    bits >> n & 1 == 1
}

impl Fields {
    fn fits(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month()) && if self.either { day || weekday } else { day && weekday }
    }
}

impl Schedule {
    /// The first time after another one, in the same time zone.
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        let fields = match self {
            Self::Every(every) => return after.checked_add(*every).ok(),
            Self::Cron(fields) => fields,
        };
        let mut date = after.date();
        for _ in 0..HORIZON {
            if fields.fits(date) {
                let hours = (0..24).filter(|h| has(fields.hours, *h));
                let times = hours.flat_map(|h| (0..60).filter(|m| has(fields.minutes, *m)).map(move |m| (h, m)));
                for (hour, minute) in times {
                    if let Ok(at) = date.at(hour, minute, 0, 0).to_zoned(after.time_zone().clone())
                        && at > *after
                    {
                        return Some(at);
                    }
                }
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        let schedule: Schedule = schedule.parse().unwrap();
        let after: Zoned = format!("{after}[UTC]").parse().unwrap();
        schedule.next(&after).unwrap().datetime().to_string()
    }

    #[test]
    fn times_follow_the_schedule() {
        // A Saturday.
        let at = "2026-11-21T19:12:30";
        for (schedule, expected) in [
            ("* * * * *", "2026-11-21T19:13:00"),
            ("0 */12 * * *", "2026-11-22T00:00:00"),
            ("*/15 * * * *", "2026-11-21T19:15:00"),
            ("10-50/20 19 * * *", "2026-11-21T19:30:00"),
            ("12 19 * * *", "2026-11-22T19:12:00"),
            ("0 3 * * mon-fri", "2026-11-23T03:00:00"),
            ("0 3 * * 7", "2026-11-22T03:00:00"),
            ("0 0 29 2 *", "2028-02-29T00:00:00"),
            ("0 0 13 * FRI", "2026-11-27T00:00:00"),
            ("0 0 1,15 jan,jul *", "2027-01-01T00:00:00"),
            ("@daily", "2026-11-22T00:00:00"),
            ("@hourly", "2026-11-21T20:00:00"),
            ("@weekly", "2026-11-22T00:00:00"),
            ("@every 90s", "2026-11-21T19:14:00"),
        ] {
            assert_eq!(next(schedule, at), expected, "{schedule}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for wrong in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "* * * foo *",
            "0 0 30 2 *",
            "@often",
            "@every 1ms",
            "@every soon",
            "-1 * * * *",
        ] {
            assert!(wrong.parse::<Schedule>().is_err(), "{wrong:?}");
        }
    }
}
