//! [`Table`]: the result of a bench, in Markdown.

/// Rows of text.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these heads.
    pub fn new<const COLUMNS: usize>(heads: [&str; COLUMNS]) -> Self {
        Self { rows: vec![heads.map(str::to_owned).to_vec()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Prints the table, aligned.
    pub fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        println!();
        for (n, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = widths
                .iter()
                .enumerate()
                .map(|(column, width)| format!("{:<width$}", row.get(column).map_or("", String::as_str)))
                .collect();
            println!("| {} |", cells.join(" | "));
            if n == 0 {
                println!("|{}|", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|"));
            }
        }
        println!();
    }
}

/// `1.2 k`, `45 k`, `45.6 M`.
pub fn count(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1} M", value / 1e6),
        value if value >= 1e4 => format!("{:.0} k", value / 1e3),
        value if value >= 1e3 => format!("{:.1} k", value / 1e3),
        value => format!("{value:.0}"),
    }
}

/// Seconds as nanoseconds, or microseconds from one on.
pub fn nanos(seconds: f64) -> String {
    if seconds >= 1e-6 { format!("{:.2} µs", seconds * 1e6) } else { format!("{:.0} ns", seconds * 1e9) }
}

/// Seconds as milliseconds.
pub fn millis(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

/// Seconds in a suitable unit.
pub fn span(seconds: f64) -> String {
    match seconds {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 1e-3 => format!("{:.2} ms", seconds * 1e3),
        seconds => nanos(seconds),
    }
}

/// Bytes in a suitable unit.
pub fn bytes(value: f64) -> String {
    match value {
        value if value >= 1_073_741_824.0 => format!("{:.2} GiB", value / 1_073_741_824.0),
        value if value >= 1_048_576.0 => format!("{:.2} MiB", value / 1_048_576.0),
        value if value >= 1_024.0 => format!("{:.2} KiB", value / 1_024.0),
        value => format!("{value:.0} B"),
    }
}

/// `1.62×`.
pub fn times(ratio: f64) -> String {
    format!("{ratio:.2}×")
}

/// `62 %`.
pub fn percent(ratio: f64) -> String {
    format!("{:.0} %", ratio * 100.0)
}

/// The goal, and whether it is met.
pub fn met(goal: &str, met: bool) -> String {
    format!("{goal}: {}", if met { "met" } else { "**missed**" })
}
