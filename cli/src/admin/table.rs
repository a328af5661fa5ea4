//! Tables for people: columns as wide as their widest cell, three blanks between, as kubectl prints them.

/// Prints headings and rows.
pub fn print(headings: &[&str], rows: &[Vec<String>]) {
    use std::io::Write;
    // Whoever reads may have seen enough.
    let _ = std::io::stdout().write_all(render(headings, rows).as_bytes());
}

/// Prints a text for programs.
///
/// # Errors
/// When the value cannot be JSON.
pub fn json<T: serde::Serialize>(value: &T) -> anyhow::Result<()> {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Headings and rows as text.
pub fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = headings.iter().map(ToString::to_string).collect();
    let mut widths: Vec<usize> = headings.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&headings).chain(rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// A duration as kubectl words ages: `45s`, `10m`, `23h`, `3d`.
pub fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s if s < 120 => format!("{s}s"),
        s if s < 2 * 3600 => format!("{}m", s / 60),
        s if s < 48 * 3600 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["master-1".into(), "leader".into()], vec!["m".into(), "follower".into()]];
        assert_eq!(render(&["NAME", "ROLE"], &rows), "NAME       ROLE\nmaster-1   leader\nm          follower\n");
    }

    #[test]
    fn ages_are_short() {
        assert_eq!([age(-5), age(119), age(120), age(7200), age(172_800)], ["0s", "119s", "2m", "2h", "2d"]);
    }
}
