//! Tables as docker prints them: capitals above, three spaces between, no lines.

use comfy_table::{ContentArrangement, Table, presets::NOTHING};

/// A table with these columns.
pub struct Columns {
    table: Table,
}

impl Columns {
    /// No rows yet.
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
        Self { table }
    }

    /// One more row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.table.add_row(cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }

    /// The lines, each ended.
    pub fn text(mut self) -> String {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 3));
        }
        let mut text = String::new();
        for line in self.table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Seconds as people say them: the two largest units.
pub fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, 0) => format!("{hours} h"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, 0, _) => format!("{days} d"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Bytes as docker writes them: powers of 1000, three digits or so.
#[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let (mut amount, mut unit) = (count as f64 / 1000.0, 0);
    while amount >= 999.95 && unit + 1 < UNITS.len() {
        (amount, unit) = (amount / 1000.0, unit + 1);
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// `a 3, b 1`, the largest first.
pub fn counts<'a>(counts: impl IntoIterator<Item = (&'a String, &'a u64)>) -> String {
    let mut counts: Vec<_> = counts.into_iter().filter(|(_, n)| **n > 0).collect();
    counts.sort_by_key(|(name, n)| (std::cmp::Reverse(**n), (*name).clone()));
    counts.into_iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_look_like_dockers() {
        let mut table = Columns::new(["NAME", "SUBNET", "HOSTS"]);
        table.row(["app".into(), "10.32.0.0/16".into(), "h1 h2".into()]);
        table.row(["a-longer-name".into(), String::new(), "h1".into()]);
        assert_eq!(
            table.text(),
            "NAME            SUBNET         HOSTS\n\
             app             10.32.0.0/16   h1 h2\n\
             a-longer-name   -              h1\n"
        );
    }

    #[test]
    fn spans_and_sizes() {
        let spans = [0, 59, 60, 3599, 3600, 3660, 86_399, 86_400, 90_000].map(span);
        assert_eq!(
            spans,
            ["0 s", "59 s", "1 min", "59 min", "1 h", "1 h 1 min", "23 h 59 min", "1 d", "1 d 1 h"]
        );
        let sizes = [0, 999, 1000, 1_500_000, 999_950_000, 12_000_000_000, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "1.5 MB", "1.0 GB", "12.0 GB", "18446.7 PB"]);
    }

    #[test]
    fn counts_are_sorted_and_zeros_left_out() {
        let all =
            std::collections::BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 7), ("c".to_owned(), 0)]);
        assert_eq!(counts(&all), "b 7, a 1");
    }
}
