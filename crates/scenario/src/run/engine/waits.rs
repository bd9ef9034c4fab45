//! Who can run, who waits for what, and what it means where nobody can run any more.

use textbed_machine::Stays;

use super::*;

impl<W: World> Engine<'_, W> {
    /// The programs that can run, in the order of their CPUs.
    pub(super) fn ready(&self) -> Vec<usize> {
        let can_run = |index: &usize| {
            let Some(program) = self.programs.get(*index) else { return false };
            let still = self.alone.is_some_and(|alone| alone != *index);
            if still || self.world.is_held(program.cpu) || !self.world.is_online(program.cpu) {
                return false;
            }
            match &program.state {
                State::Ready => true,
                State::Awaits(name, _) => self.published.contains_key(*name),
                State::WantsLock(name, shared, _) => {
                    !self.locks.contains_key(name.as_ref())
                        && !self.world.lock_waits(program.cpu, name, *shared)
                }
                State::WantsCallEnd(cpu, _) => !self.world.is_calling(*cpu),
                State::WantsQuiet(stay, _) => !self.world.still_stays(*stay),
                State::WantsCpus(cpus, _) | State::HeldBack(cpus, _) => {
                    !self.any_irqs_off(cpus, program.cpu)
                }
                State::Hangs(..) | State::Ended | State::Died => false,
            }
        };
        (0..self.programs.len()).filter(can_run).collect()
    }

    /// Where nobody can run: a program whose call was held back, and may not have to wait at all.
    pub(super) fn held_back(&self) -> Option<usize> {
        let alone = |index: usize| self.alone.is_none_or(|alone| alone == index);
        let held = |p: &Program<'_>| matches!(p.state, State::HeldBack(..));
        self.programs.iter().enumerate().position(|(index, p)| alone(index) && held(p))
    }

    /// Those of some CPUs that have interrupts off, but for one of them.
    fn irqs_off(&self, cpus: &[CpuId], but: CpuId) -> Vec<CpuId> {
        let off = |p: &&Program<'_>| {
            (p.irqs_off > 0 || self.world.is_shut(p.cpu)) && p.cpu != but && !p.is_over()
        };
        let off = self.programs.iter().filter(off).map(|p| p.cpu);
        off.filter(|cpu| cpus.contains(cpu)).collect()
    }

    pub(super) fn any_irqs_off(&self, cpus: &[CpuId], but: CpuId) -> bool {
        !self.irqs_off(cpus, but).is_empty()
    }

    /// How it ends where no program can run: all are over, or some are blocked.
    pub(super) fn nobody_can_run(&mut self) -> Result<Finish, Stop> {
        for program in &self.programs {
            if let State::Hangs(cpus, _) = &program.state
                && !self.any_irqs_off(cpus, program.cpu)
            {
                let text = "waited in the middle of a call for interrupts that are on again";
                return Err(Stop::NotModelled(format!("{}: {text}", program.cpu)));
            }
        }
        let waiting: Vec<(String, Span)> =
            self.programs.iter().filter_map(|p| self.waiting(p)).collect();
        let blocked = !waiting.is_empty();
        for (text, place) in waiting {
            self.note(text, place);
        }
        Ok(if blocked { Finish::Blocked } else { Finish::Ended })
    }

    /// What a program that can't run waits for.
    fn waiting(&self, program: &Program<'_>) -> Option<(String, Span)> {
        let cpu = program.cpu;
        if !self.world.is_online(cpu) {
            let what = || format!("{cpu} is offline, and nobody brings it up");
            return (!program.is_through()).then(|| (what(), program.place()));
        }
        match &program.state {
            State::WantsCallEnd(other, place) => {
                Some((format!("{cpu} waits for the end of the call on {other}"), *place))
            }
            State::WantsQuiet(Stays::Task(other, _), place) => Some((
                format!(
                    "{cpu} waits for the task that was preempted on {other}, and never goes on"
                ),
                *place,
            )),
            State::WantsQuiet(Stays::Reads(other, _), place) => Some((
                format!("{cpu} waits for the read-side section on {other}, which never ends"),
                *place,
            )),
            State::Awaits(name, place) => {
                Some((format!("{cpu} waits for `{name}`, which nobody publishes"), *place))
            }
            State::WantsLock(name, _, place) => Some((
                format!("{cpu} waits for the lock `{name}`, which is never released"),
                *place,
            )),
            State::WantsCpus(cpus, place)
            | State::HeldBack(cpus, place)
            | State::Hangs(cpus, place) => {
                let off: Vec<String> =
                    self.irqs_off(cpus, cpu).iter().map(ToString::to_string).collect();
                let take = if off.len() == 1 { "takes" } else { "take" };
                let who = off.join(" and ");
                Some((
                    format!("{cpu} waits for {who}, which never {take} interrupts again"),
                    *place,
                ))
            }
            State::Ready => Some((format!("{cpu} is held still for ever"), Span::default())),
            State::Ended | State::Died => None,
        }
    }
}
