//! The input of a job of any size: short rows, each of which names itself, so that every answer can be checked.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

const THINGS: [&str; 8] = [
    "Dill pickles",
    "Rye crackers",
    "Oat milk",
    "\"Extra\" olives",
    "Plum jam, tart",
    "Sea salt",
    "Crème fraîche",
    "Tea",
];

/// What stands before a row's number in its prompt and in its answer.
pub(super) const MARK: &str = "row ";

/// The prompt of a row.
pub(super) const TEMPLATE: &str = "row {{ number }}: what is {{ thing }}?";

/// Writes a table of so many rows: about 35 bytes each; some cells are quoted.
pub(super) fn write(path: &Path, rows: u64) -> std::io::Result<u64> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(b"number,thing,price\r\n")?;
    let mut line = Vec::new();
    for row in 0..rows {
        line.clear();
        let thing = THINGS[usize::try_from(row % 8).unwrap_or_default()];
        write!(line, "{row:012},")?;
        if thing.contains(['"', ',']) {
            write!(line, "\"{}\"", thing.replace('"', "\"\""))?;
        } else {
            line.extend_from_slice(thing.as_bytes());
        }
        write!(line, ",{}.{:02}\r\n", row % 40, row % 97)?;
        file.write_all(&line)?;
    }
    file.flush()?;
    Ok(path.metadata()?.len())
}
