//! Tables: each column is as wide as its widest cell, with two spaces between columns and no lines.
//! On a terminal, long free text is cut with `…` so that a row fits on one line.

use std::fmt::Write as _;

use anstyle::Style;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::BOLD;
use crate::text::one_line;

/// Spaces between two columns.
const GAP: usize = 2;
/// A column is not cut below this width: less would no longer identify anything.
const MIN_CUT_WIDTH: usize = 12;

/// A cell: text without escape sequences, and its style.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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

/// The beginning of `text` that fits into `width` columns, with `…` where something is left out.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1; // the `…`
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept
}

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    /// Titles of the columns that may be cut.
    free_text: Vec<&'static str>,
}

impl Table {
    /// An empty table with this header.
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
            free_text: Vec::new(),
        }
    }

    /// Names the columns with free text: [`Table::render_within`] cuts the widest of them where a
    /// row would not fit.
    pub(crate) fn free_text(mut self, titles: &[&'static str]) -> Self {
        self.free_text = titles.to_vec();
        self
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

    /// The table as text in full width, each line ended.
    pub(crate) fn render(&self) -> String {
        self.render_within(None)
    }

    /// The table as text. Where `limit` columns are not enough, the widest columns of free text are
    /// cut; what still does not fit is left to the terminal to wrap.
    pub(crate) fn render_within(&self, limit: Option<usize>) -> String {
        let widths = self.widths(limit);
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
                let shown = cut(&cell.text, *width);
                _ = write!(text, "{style}{shown}{style:#}");
                if index < last {
                    let padding = width - shown.width() + GAP;
                    _ = write!(text, "{:padding$}", "");
                }
            }
            text.push('\n');
        }
        text
    }

    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self.header.iter().map(|title| title.width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        let Some(limit) = limit else { return widths };
        // One column at a time comes off the widest, so equally long columns stay equally long.
        let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        for _ in limit..total {
            let widest = (0..widths.len())
                .filter(|index| self.free_text.contains(&self.header[*index]))
                .max_by_key(|index| widths[*index]);
            let Some(widest) = widest.filter(|index| widths[*index] > MIN_CUT_WIDTH) else {
                break;
            };
            widths[widest] -= 1;
        }
        widths
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

    fn within(table: &Table, limit: usize) -> String {
        anstream::adapter::strip_str(&table.render_within(Some(limit))).to_string()
    }

    #[test]
    fn table_cuts_its_widest_free_text_column_to_the_limit() {
        let mut table =
            Table::new(&["NAME", "IMAGE", "PORTS"]).free_text(&["NAME", "IMAGE", "PORTS"]);
        table.row([
            "web".into(),
            "registry.example.com/shop/web:2026".into(),
            "80, 443".into(),
        ]);
        table.row(["db".into(), "postgres:18".into(), "".into()]);
        let text = within(&table, 40);
        assert_eq!(
            text,
            "NAME  IMAGE                      PORTS\n\
             web   registry.example.com/sho…  80, 443\n\
             db    postgres:18\n"
        );
        assert!(text.lines().all(|line| line.width() <= 40));
        assert_eq!(within(&table, 54), plain(&table), "everything fits");
        assert_eq!(within(&table, 200), plain(&table));
    }

    #[test]
    fn table_cuts_no_column_below_the_minimum_and_no_other_column() {
        let mut table = Table::new(&["CONTAINER", "IMAGE"]).free_text(&["IMAGE"]);
        table.row(["0123456789abcdef".into(), "a-very-long-image-name".into()]);
        assert_eq!(
            within(&table, 10),
            "CONTAINER         IMAGE\n0123456789abcdef  a-very-long…\n"
        );
    }

    #[test]
    fn table_cuts_wide_characters_whole() {
        let mut table = Table::new(&["A"]).free_text(&["A"]);
        table.row(["数据库数据库数据库".into()]);
        assert_eq!(within(&table, 14), "A\n数据库数据库…\n");
    }
}
