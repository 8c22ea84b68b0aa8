//! Lines of CSV files that people open in a spreadsheet.

/// One line of a CSV file (RFC 4180), with its line break. Every cell is quoted. A cell that a spreadsheet would take
/// for a formula (one that begins with `=`, `+`, `-`, `@`, a tab or a carriage return) gets a leading apostrophe, which
/// spreadsheets take for "this is text".
pub(crate) fn line(cells: &[&str]) -> String {
    let mut line = String::new();
    for (at, cell) in cells.iter().enumerate() {
        if at > 0 {
            line.push(',');
        }
        line.push('"');
        if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
            line.push('\'');
        }
        line.push_str(&cell.replace('"', "\"\""));
        line.push('"');
    }
    line.push_str("\r\n");
    line
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn cells_are_quoted() {
        assert_eq!(line(&["a", "", "b \"c\", d", "e\nf"]), "\"a\",\"\",\"b \"\"c\"\", d\",\"e\nf\"\r\n");
        assert_eq!(line(&[]), "\r\n");
    }

    #[test]
    fn no_cell_is_a_formula() {
        for first in ["=", "+", "-", "@", "\t", "\r"] {
            assert_eq!(line(&[&format!("{first}1")]), format!("\"'{first}1\"\r\n"));
        }
        // Inside a cell these are text anyway.
        assert_eq!(line(&["1=1"]), "\"1=1\"\r\n");
    }
}
