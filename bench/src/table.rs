// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tables, for a terminal and for Markdown alike.

use std::fmt::Write as _;

use crate::turns::Row;

/// What a column says, and what is expected of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) heading: &'static str,
    pub(crate) better: Better,
    /// Digits behind the point.
    pub(crate) digits: usize,
    pub(crate) target: Option<Target>,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// What our rows have to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// At least as many times as fast as the reference.
    TimesReference(f64),
    /// This value, in the column's unit.
    Value(f64),
}

/// One measure.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    /// What was done.
    pub(crate) what: String,
    pub(crate) columns: Vec<Column>,
    /// Name of the row that the others are compared with.
    pub(crate) reference: Option<String>,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    /// As Markdown, in columns.
    pub(crate) fn render(&self) -> String {
        let mut lines = vec![self.header()];
        lines.extend(self.rows.iter().map(|row| self.line(row)));
        let mut widths = vec![0; lines.iter().map(Vec::len).max().unwrap_or(0)];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = format!("### {}\n\n{}\n\n", self.title, self.what);
        for (index, line) in lines.iter().enumerate() {
            text.push_str(&padded(line, &widths));
            if index == 0 {
                let rules = widths.iter().map(|width| "-".repeat(width + 2));
                let rules: Vec<_> = rules.collect();
                let _ = writeln!(text, "|{}|", rules.join("|"));
            }
        }
        for row in &self.rows {
            if let Err(reason) = &row.values {
                let _ = write!(text, "\nNot run: {}: {reason}.\n", row.name);
            }
        }
        text
    }

    fn header(&self) -> Vec<String> {
        let mut cells = vec![String::new()];
        for column in &self.columns {
            cells.push(column.heading.to_owned());
        }
        if let Some(reference) = &self.reference {
            cells.push(format!("times as fast as {reference}"));
        }
        let targets = self
            .columns
            .iter()
            .filter_map(|column| self.describe(column));
        let targets: Vec<_> = targets.collect();
        if !targets.is_empty() {
            cells.push(format!("target: {}", targets.join(", ")));
        }
        cells
    }

    fn describe(&self, column: &Column) -> Option<String> {
        let sign = match column.better {
            Better::Higher => '≥',
            Better::Lower => '≤',
        };
        match column.target? {
            Target::Value(value) => Some(format!("{sign} {value}")),
            Target::TimesReference(times) => Some(format!("≥ {times}")),
        }
    }

    fn line(&self, row: &Row) -> Vec<String> {
        let mut cells = vec![row.name.clone()];
        let values = match &row.values {
            Ok(values) => values,
            Err(_) => {
                cells.push("not run".to_owned());
                let rest = self.header().len().saturating_sub(2);
                cells.extend(vec![String::new(); rest]);
                return cells;
            }
        };
        for (column, value) in self.columns.iter().zip(values) {
            cells.push(format!("{value:.*}", column.digits));
        }
        if self.reference.is_some() {
            let times = self.times(row);
            cells.push(times.map_or(String::new(), |times| format!("{times:.2}")));
        }
        if self.columns.iter().any(|column| column.target.is_some()) {
            let verdict = if row.ours { self.verdict(row) } else { "" };
            cells.push(verdict.to_owned());
        }
        cells
    }

    /// The first column, beside the reference's.
    fn times(&self, row: &Row) -> Option<f64> {
        let reference = self.reference.as_ref()?;
        let other = self.rows.iter().find(|row| row.name == *reference)?;
        let median = |row: &Row| Some(row.values.as_ref().ok()?.first()?.median);
        let (own, other) = (median(row)?, median(other)?);
        Some(match self.columns.first()?.better {
            Better::Higher => own / other,
            Better::Lower => other / own,
        })
    }

    fn verdict(&self, row: &Row) -> &'static str {
        let met = |(index, column): (usize, &Column)| {
            let value = row.values.as_ref().ok()?.get(index)?.median;
            Some(match (column.target?, column.better) {
                (Target::Value(target), Better::Higher) => value >= target,
                (Target::Value(target), Better::Lower) => value <= target,
                (Target::TimesReference(target), _) => self.times(row)? >= target,
            })
        };
        let verdicts: Vec<bool> = self.columns.iter().enumerate().filter_map(met).collect();
        match verdicts.iter().all(|&met| met) {
            _ if verdicts.is_empty() => "",
            true => "met",
            false => "missed",
        }
    }
}

fn padded(line: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (width, cell) in widths.iter().zip(line) {
        let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
        // Writing to a string cannot fail.
        let _ = write!(text, "| {cell}{padding} ");
    }
    text.push_str("|\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turns::Spread;

    fn row(name: &str, ours: bool, median: f64) -> Row {
        let spread = Spread {
            low: median,
            median,
            high: median,
        };
        Row {
            name: name.to_owned(),
            ours,
            values: Ok(vec![spread]),
        }
    }

    fn table(better: Better, target: Target, rows: Vec<Row>) -> Table {
        Table {
            title: "Title".to_owned(),
            what: "What.".to_owned(),
            columns: vec![Column {
                heading: "unit",
                better,
                digits: 1,
                target: Some(target),
            }],
            reference: Some("memcpy".to_owned()),
            rows,
        }
    }

    #[test]
    fn a_higher_rate_and_a_lower_time_are_both_more_times_as_fast() {
        for (better, ours) in [(Better::Higher, 20.0), (Better::Lower, 5.0)] {
            let rows = vec![row("memcpy", false, 10.0), row("ours", true, ours)];
            let table = table(better, Target::TimesReference(1.5), rows);
            assert_eq!(table.times(&table.rows[1]), Some(2.0));
            assert_eq!(table.verdict(&table.rows[1]), "met");
        }
    }

    #[test]
    fn a_target_that_is_not_reached_is_said_to_be_missed() {
        let rows = vec![row("memcpy", false, 10.0), row("ours", true, 9.0)];
        for (better, target, verdict) in [
            (Better::Higher, 9.5, "missed"),
            (Better::Higher, 9.0, "met"),
            (Better::Lower, 8.0, "missed"),
        ] {
            let table = table(better, Target::Value(target), rows.clone());
            assert_eq!(table.verdict(&table.rows[1]), verdict, "{target}");
        }
    }

    #[test]
    fn who_did_not_run_is_in_the_table_with_the_reason() {
        let mut absent = row("peer", false, 0.0);
        absent.values = Err("not installed".to_owned());
        let rows = vec![row("memcpy", false, 10.0), absent];
        let text = table(Better::Higher, Target::Value(1.0), rows).render();
        assert!(text.contains("| peer   | not run "), "{text}");
        assert!(
            text.ends_with("\nNot run: peer: not installed.\n"),
            "{text}"
        );
        let pipes = |line: &str| line.matches('|').count();
        let counts: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert!(counts.iter().all(|line| pipes(line) == pipes(counts[0])));
    }
}
