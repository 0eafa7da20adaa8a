//! Sizes for people. Counts are grouped by `text_table`; sizes that are read, such as `256MiB`, are in `config`.

/// A number of bytes in decimal units: `999 B`, `12.3 MB`.
pub(crate) fn format_bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = n as f64;
    let mut unit = 0;
    // From 999.5 on a value would be rounded to 1000.
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_read_well() {
        assert_eq!(crate::text_table::grouped(1234567), "1,234,567");
        assert_eq!(super::format_bytes(12_345_678), "12.3 MB");
        assert_eq!(super::format_bytes(999), "999 B");
    }
}
