//! Counts of what was compared.

use std::collections::BTreeMap;

/// What was compared, by column.
#[derive(Default)]
pub struct Tally(BTreeMap<String, (u64, u64)>);

impl Tally {
    /// Counts one comparison.
    pub fn add(&mut self, column: String, equal: bool) {
        let cell = self.0.entry(column).or_default();
        cell.0 += 1;
        cell.1 += u64::from(equal);
    }

    /// Prints each column and the sum, and returns the sum: compared, equal.
    pub fn report(&self, name: &str) -> (u64, u64) {
        let (n, e) = self.0.values().fold((0, 0), |(n, e), v| (n + v.0, e + v.1));
        for (column, (n, e)) in &self.0 {
            println!("  {name} {column}: {n} compared, {e} equal");
        }
        println!("{name}: {n} compared, {e} equal");
        (n, e)
    }
}
