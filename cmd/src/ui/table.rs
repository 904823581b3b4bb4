//! Tables: each column is as wide as its widest cell, with two spaces between columns and no lines.

use std::fmt::Write as _;

use anstyle::Style;
use unicode_width::UnicodeWidthStr as _;

use super::BOLD;
use super::text::one_line;

/// A cell: text without escape sequences, and its style.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in this style.
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: one_line(&text.into()),
            style,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: one_line(&text.into()),
            style: Style::new(),
        }
    }
}

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table with this header.
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// Removes the column with this title if all its cells are empty.
    pub(crate) fn without_empty(mut self, title: &str) -> Self {
        let Some(index) = self.header.iter().position(|name| *name == title) else {
            return self;
        };
        if self
            .rows
            .iter()
            .all(|row| row.get(index).is_none_or(|cell| cell.text.is_empty()))
        {
            self.header.remove(index);
            for row in &mut self.rows {
                if index < row.len() {
                    row.remove(index);
                }
            }
        }
        self
    }

    /// The table as text. Every line ends with a line break.
    pub(crate) fn render(&self) -> String {
        let mut widths: Vec<usize> = self.header.iter().map(|title| title.width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        let mut text = String::new();
        let header = self
            .header
            .iter()
            .map(|title| Cell::styled(*title, BOLD))
            .collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            let last = row
                .iter()
                .rposition(|cell| !cell.text.is_empty())
                .unwrap_or(0);
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate().take(last + 1) {
                let style = cell.style;
                _ = write!(text, "{style}{}{style:#}", cell.text);
                if index < last {
                    let padding = width - cell.text.width() + 2;
                    _ = write!(text, "{:padding$}", "");
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(table: &Table) -> String {
        anstream::adapter::strip_str(&table.render()).to_string()
    }

    #[test]
    fn columns_are_aligned_by_width_on_screen() {
        let mut table = Table::new(&["NAME", "STATE", "NOTE"]);
        table.row([
            "web".into(),
            Cell::styled("up", super::super::GREEN),
            "ü".into(),
        ]);
        table.row(["数据库".into(), "down".into(), "".into()]);
        assert_eq!(
            plain(&table),
            "NAME    STATE  NOTE\nweb     up     ü\n数据库  down\n"
        );
    }

    #[test]
    fn cell_cannot_break_its_line_or_send_escapes() {
        let mut table = Table::new(&["A"]);
        table.row(["x\n\u{1b}[31my".into()]);
        assert_eq!(table.render().lines().last(), Some("x y"));
    }

    #[test]
    fn empty_column_is_removed_and_others_are_kept() {
        let mut table = Table::new(&["A", "B", "C"]);
        table.row(["1".into(), "".into(), "3".into()]);
        assert_eq!(
            plain(&table.without_empty("B").without_empty("A")),
            "A  C\n1  3\n"
        );
    }
}
