//! What becomes of results: when they are looked at, and when nobody can any more.

use super::super::results::Pending;
use super::*;

impl<W: World> Engine<'_, W> {
    /// Names were read in an `if`, an `assert` or a `try`.
    pub(super) fn look(&mut self, index: usize, names: Vec<&str>) -> Result<(), Stop> {
        for name in names {
            let program = self.program(index)?;
            let result = program.variables.get_mut(name).and_then(|v| v.result.take());
            if let Some(result) = result {
                self.use_result(result)?;
            }
        }
        Ok(())
    }

    pub(super) fn use_result(&mut self, result: usize) -> Result<(), Stop> {
        if let Some(Pending { call, cpu, .. }) = self.results.settle(result) {
            self.world.result(cpu, call, true);
        }
        Ok(())
    }

    pub(super) fn drop_result(&mut self, result: usize) -> Result<(), Stop> {
        if let Some(Pending { call, cpu, place, note, .. }) = self.results.settle(result) {
            self.world.at(place);
            self.world.result(cpu, call, false);
            if let Some(note) = note.and_then(|note| self.notes.get_mut(note)) {
                note.text.push_str(", result dropped");
            }
        }
        Ok(())
    }

    /// Drops the results that nobody can look at any more: those in variables of programs that came
    /// to their end, and those that are looked at nowhere in the programs that have them.
    pub(super) fn settle(&mut self) -> Result<(), Stop> {
        let mut dropped = Vec::new();
        let may_look = |p: &Program<'_>, name: &String| {
            p.state != State::Ended && p.looks_at.contains(name.as_str())
        };
        for program in &self.programs {
            let own = program.variables.iter().filter(|(_, variable)| !variable.from_setup);
            let open = own.filter(|(name, _)| !may_look(program, name));
            dropped.extend(open.filter_map(|(_, variable)| variable.result));
        }
        for (name, variable) in &self.setup_variables {
            if !self.programs.iter().any(|program| may_look(program, name)) {
                dropped.extend(variable.result);
            }
        }
        dropped.sort_unstable();
        dropped.into_iter().try_for_each(|result| self.drop_result(result))
    }
}
