//! The report of a run for people: one timeline of throughput, p99, leader and faults, and below it what was found. One
//! file that needs nothing else.

use std::fmt::Write as _;

use super::history::*;
use super::run::round::Outcome;
use crate::report::percentile;

const WIDTH: f64 = 1180.0;
const LEFT: f64 = 70.0;
const BINS: usize = 240;
/// Colours of leaders, by number.
const COLOURS: [&str; 6] = ["#bbb", "#4477aa", "#ee9944", "#228866", "#aa4488", "#998822"];

/// What happened in one slice of time.
#[derive(Clone, Debug, Default)]
struct Bin {
    writes: usize,
    reads: usize,
    failed: usize,
    millis: Vec<f64>,
}

/// All slices, and how long one is in microseconds.
fn bins(history: &History, end: Micros) -> (Vec<Bin>, f64) {
    let slice = (end as f64 / BINS as f64).max(100_000.0);
    let mut bins = vec![Bin::default(); (end as f64 / slice).ceil() as usize + 1];
    for operation in &history.operations {
        let bin = &mut bins[(operation.ended.min(end) as f64 / slice) as usize];
        match (&operation.call, &operation.answer) {
            (_, Answer::Refused(_) | Answer::Unknown(_)) => {
                bin.failed += 1;
                continue;
            }
            (Call::Range { .. }, _) => bin.reads += 1,
            _ => bin.writes += 1,
        }
        bin.millis.push((operation.ended.saturating_sub(operation.begun)) as f64 / 1000.0);
    }
    (bins, slice)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A drawing that grows downwards.
struct Drawing {
    svg: String,
    end: f64,
    top: f64,
}

impl Drawing {
    fn x(&self, at: f64) -> f64 {
        LEFT + at / self.end * (WIDTH - LEFT - 10.0)
    }

    fn text(&mut self, x: f64, y: f64, more: &str, text: &str) {
        let _ = writeln!(self.svg, "<text x='{x:.1}' y='{y:.1}' {more}>{}</text>", escape(text));
    }

    /// Curves over a common scale, in a lane of this height. A logarithmic scale begins at 1.
    fn curves(&mut self, title: &str, height: f64, slice: f64, log: bool, curves: &[(&str, &str, Vec<Option<f64>>)]) {
        let all = curves.iter().flat_map(|(_, _, values)| values.iter().flatten());
        let highest = all.copied().fold(if log { 10.0 } else { 1.0 }, f64::max);
        let share = |value: f64| if log { value.max(1.0).ln() / highest.ln() } else { value / highest };
        let ticks: Vec<f64> = match log {
            true => [1.0, 10.0, 100.0, 1000.0, 10_000.0].into_iter().filter(|tick| *tick <= highest).collect(),
            false => vec![0.0, highest / 2.0, highest],
        };
        let (top, bottom) = (self.top + 18.0, self.top + 18.0 + height);
        self.text(4.0, self.top + 12.0, "font-weight='bold'", title);
        let mut x = 220.0;
        for (name, colour, _) in curves {
            self.text(x, self.top + 12.0, &format!("fill='{colour}'"), name);
            x += 20.0 + 7.0 * name.len() as f64;
        }
        for tick in ticks {
            let y = bottom - share(tick) * height;
            let _ = writeln!(self.svg, "<line x1='{LEFT}' x2='{WIDTH}' y1='{y:.1}' y2='{y:.1}' stroke='#ddd'/>");
            self.text(LEFT - 6.0, y + 4.0, "text-anchor='end'", &format!("{tick:.0}"));
        }
        for (_, colour, values) in curves {
            let points = values.iter().enumerate().filter_map(|(i, value)| {
                let x = self.x((i as f64 + 0.5) * slice);
                value.map(|value| format!("{x:.1},{:.1}", bottom - share(value) * (bottom - top)))
            });
            let points = points.collect::<Vec<_>>().join(" ");
            let _ =
                writeln!(self.svg, "<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='1.5'/>");
        }
        self.top = bottom + 12.0;
    }

    fn bar(&mut self, from: f64, until: f64, top: f64, colour: &str, label: &str, title: &str) {
        let (x, width) = (self.x(from), (self.x(until) - self.x(from)).max(2.0));
        let _ = writeln!(
            self.svg,
            "<g><title>{}</title><rect x='{x:.1}' y='{top:.1}' width='{width:.1}' height='15' fill='{colour}' rx='2'/></g>",
            escape(title)
        );
        self.text(x + 3.0, top + 11.5, "font-size='10' pointer-events='none'", label);
    }

    fn leaders(&mut self, reigns: &[Reign]) {
        self.text(4.0, self.top + 12.0, "font-weight='bold'", "leader");
        let ends = reigns.iter().skip(1).map(|reign| reign.at as f64).chain([self.end]);
        for (reign, until) in reigns.iter().zip(ends.collect::<Vec<_>>()) {
            let number = reign.leader.unwrap_or(0) as usize;
            let label = reign.leader.map(|leader| format!("m{leader}")).unwrap_or_default();
            let (from, term) = (reign.at as f64, reign.term);
            let title = format!("{} in term {term}, {:.2}-{:.2} s", label, from / 1e6, until / 1e6);
            let label = if self.x(until) - self.x(from) < 22.0 { "" } else { &label };
            self.bar(from, until, self.top, COLOURS[number % COLOURS.len()], label, &title);
        }
        self.top += 24.0;
    }

    fn faults(&mut self, marks: &[Mark]) {
        self.text(4.0, self.top + 12.0, "font-weight='bold'", "faults");
        // A label may be longer than its fault: each goes where there is room for it.
        let mut lanes: Vec<f64> = Vec::new();
        for mark in marks {
            let (from, until) = (mark.at as f64, mark.until as f64);
            let right = self.x(until).max(self.x(from) + 8.0 + 5.5 * mark.what.len() as f64);
            let lane = lanes.iter().position(|end| *end < self.x(from)).unwrap_or(lanes.len());
            if lane == lanes.len() {
                lanes.push(0.0);
            }
            lanes[lane] = right;
            let title = format!("{}, {:.2}-{:.2} s", mark.what, from / 1e6, until / 1e6);
            self.bar(from, until, self.top + 18.0 * lane as f64, "#e7a6a0", &mark.what, &title);
        }
        self.top += 18.0 * lanes.len().max(1) as f64 + 6.0;
    }

    fn seconds(&mut self) {
        let all = self.end / 1e6;
        let step = [1.0, 2.0, 5.0, 10.0, 20.0, 60.0].into_iter().find(|step| all / step <= 24.0).unwrap_or(120.0);
        let mut at = 0.0;
        while at <= all {
            let x = self.x(at * 1e6);
            let bottom = self.top;
            let _ = writeln!(self.svg, "<line x1='{x:.1}' x2='{x:.1}' y1='0' y2='{bottom:.1}' stroke='#eee'/>");
            self.text(x, bottom + 12.0, "text-anchor='middle'", &format!("{at:.0} s"));
            at += step;
        }
        self.top += 20.0;
    }
}

/// The timeline.
fn timeline(history: &History) -> String {
    let times = history.operations.iter().map(|o| o.ended).chain(history.marks.iter().map(|m| m.until));
    let end = times.max().unwrap_or(1).max(1);
    let (bins, slice) = bins(history, end);
    let mut drawing = Drawing { svg: String::new(), end: end as f64, top: 0.0 };
    let rate = |count: fn(&Bin) -> usize| bins.iter().map(|bin| Some(count(bin) as f64 / slice * 1e6)).collect();
    let p99 = bins.iter().map(|bin| (!bin.millis.is_empty()).then(|| percentile(&bin.millis, 99.0))).collect();
    let median = bins.iter().map(|bin| (!bin.millis.is_empty()).then(|| percentile(&bin.millis, 50.0))).collect();
    let rates = [
        ("reads", "#4477aa", rate(|bin| bin.reads)),
        ("writes", "#228866", rate(|bin| bin.writes)),
        ("refused or unknown", "#cc3322", rate(|bin| bin.failed)),
    ];
    drawing.curves("requests per second", 130.0, slice, false, &rates);
    drawing.curves("latency, ms", 110.0, slice, true, &[("p99", "#aa4488", p99), ("median", "#998822", median)]);
    drawing.leaders(&history.reigns);
    drawing.faults(&history.marks);
    drawing.seconds();
    let (height, svg) = (drawing.top, drawing.svg);
    format!("<svg viewBox='0 0 {WIDTH} {height:.0}' width='100%' font-family='sans-serif' font-size='11'>\n{svg}</svg>")
}

/// The whole page.
pub fn page(outcome: &Outcome) -> String {
    let history = &outcome.verdict.history;
    let Head { seed, name, .. } = &history.head;
    let good = outcome.verdict.findings.is_empty();
    let verdict =
        if good { "nothing found".to_owned() } else { format!("{} findings", outcome.verdict.findings.count) };
    let colour = if good { "#228866" } else { "#cc3322" };
    let mut page = format!(
        "<!doctype html>\n<html lang='en'><meta charset='utf-8'><title>{0}, seed {seed}: {verdict}</title>\n<style>body{{font-family:\
         sans-serif;margin:24px;max-width:1240px;color:#222}}td,th{{padding:2px 12px 2px 0;text-align:left;vertical-align:top}}\
         li{{margin:6px 0;font-family:monospace;white-space:pre-wrap}}</style>\n<h1>{0}, seed {seed}: <span style='color:{colour}'>\
         {verdict}</span></h1>\n<p>{1}</p>\n",
        escape(name),
        escape(&outcome.line())
    );
    page += &timeline(history);
    if !good {
        page += "\n<h2>Findings</h2>\n<ul>\n";
        for line in outcome.verdict.findings.lines() {
            let _ = writeln!(page, "<li>{}</li>", escape(&line));
        }
        page += "</ul>\n";
        let more = outcome.verdict.findings.count.saturating_sub(outcome.verdict.findings.kept.len());
        if more > 0 {
            let _ = writeln!(page, "<p>and {more} more</p>");
        }
        // Only of a run with findings are they kept.
        let _ = writeln!(
            page,
            "<p>Beside this file lie the history and the members' logs. To judge it again: <code>{}</code></p>",
            escape(&outcome.again)
        );
    }
    page += "\n<h2>Faults</h2>\n<table><tr><th>from</th><th>until</th><th>what</th></tr>\n";
    for Mark { at, until, what } in &history.marks {
        let (at, until) = (*at as f64 / 1e6, *until as f64 / 1e6);
        let _ = writeln!(page, "<tr><td>{at:.2} s</td><td>{until:.2} s</td><td>{}</td></tr>", escape(what));
    }
    page + "</table>\n</html>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::evidence::Findings;
    use crate::store::run::round::judge;
    use crate::store::simulated::{self, Plan};

    #[test]
    fn a_report_needs_nothing_else_and_shows_all() {
        let mut history = simulated::history(3, Plan { steps: 400, clients: 4, old: false, late: false });
        history.marks.push(Mark { at: 100, until: 200, what: "kill -9 <m1>".into() });
        history.reigns.push(Reign { at: 0, leader: Some(2), term: 3 });
        let outcome = judge(history, Findings::default(), std::path::PathBuf::new());
        let page = page(&outcome);
        for wanted in ["nothing found", "kill -9 &lt;m1&gt;", "m2 in term 3", "<polyline", "requests per second", "p99"]
        {
            assert!(page.contains(wanted), "{wanted} is not in the page");
        }
        for other in ["http", "<script", "<m1>", "NaN", "make chaos"] {
            assert!(!page.contains(other), "{other}");
        }
    }

    #[test]
    fn a_report_with_findings_says_how_many_there_are_and_how_to_judge_them_again() {
        let history = simulated::history(3, Plan { steps: 20, clients: 2, old: false, late: false });
        let mut outcome = judge(history, Findings::default(), std::path::PathBuf::from("/somewhere"));
        (0..300).for_each(|i| outcome.verdict.findings.add("test", || format!("finding {i} of <m1>")));
        let (kept, page) = (outcome.verdict.findings.kept.len(), page(&outcome));
        for wanted in ["300 findings", "finding 0 of &lt;m1&gt;", "make chaos FILE=/somewhere/history.jsonl"] {
            assert!(page.contains(wanted), "{wanted} is not in the page");
        }
        assert!(kept < 300 && page.contains(&format!("and {} more", 300 - kept)), "{kept}");
    }
}
