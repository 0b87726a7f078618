//! The columns that lines may take.

use std::{env, io};

/// Fewer columns than these are taken for an error: no line would be readable.
const LEAST: usize = 40;

/// Columns of the terminal that stdout is, or those of the variable `COLUMNS`. `None`: a line may have any length.
pub(crate) fn columns() -> Option<usize> {
    let terminal = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
    let columns = terminal.filter(|columns| *columns > 0).or_else(|| env::var("COLUMNS").ok()?.trim().parse().ok());
    columns.map(|columns| columns.max(LEAST))
}

/// Takes columns from the widest cells until the line fits; no cell becomes narrower than 5.
pub(crate) fn fit<const N: usize>(widths: &mut [usize; N], between: usize, columns: usize) {
    const NARROW: usize = 5;
    let room = columns.saturating_sub(between * N.saturating_sub(1));
    let mut excess = widths.iter().sum::<usize>().saturating_sub(room);
    while excess > 0 {
        let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > NARROW) else { return };
        *widest -= 1;
        excess -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_cells_give_way() {
        let mut widths = [10, 40, 30, 4];
        fit(&mut widths, 2, 56);
        assert_eq!(widths, [10, 18, 18, 4]);
        fit(&mut widths, 2, 200);
        assert_eq!(widths, [10, 18, 18, 4], "and nothing is widened");
        let mut many = [9; 8];
        fit(&mut many, 2, 20);
        assert_eq!(many, [5; 8], "a cell keeps a few characters");
    }
}
