//! `with` and `ipi`: what holds other CPUs, and what makes them do something.

use textbed_kernel::HOTPLUG_LOCK;

use super::*;

impl<'a, W: World> Engine<'a, W> {
    /// Begins a `with`; `false` if the program has to wait first.
    pub(super) fn enter(
        &mut self,
        index: usize,
        context: &'a Context,
        place: Span,
    ) -> Result<bool, Stop> {
        let cpu = self.program(index)?.cpu;
        match context {
            Context::Lock(name) => {
                if self.locks.contains_key(&name.value)
                    || self.world.lock_waits(cpu, &name.value, false)
                {
                    self.program(index)?.state =
                        State::WantsLock(Cow::Borrowed(&name.value), false, place);
                    return Ok(false);
                }
                self.world.enter(cpu, Inside::Lock(&name.value))?;
                self.locks.insert(name.value.clone(), cpu);
            }
            Context::StopMachine => {
                if self.world.lock_waits(cpu, HOTPLUG_LOCK, true) {
                    self.program(index)?.state =
                        State::WantsLock(Cow::Borrowed(HOTPLUG_LOCK), true, place);
                    return Ok(false);
                }
                let others: Vec<CpuId> = (0..self.cpus).map(CpuId).collect();
                if self.any_irqs_off(&others, cpu) {
                    self.program(index)?.state = State::WantsCpus(others, place);
                    return Ok(false);
                }
                self.world.enter(cpu, Inside::StopMachine)?;
                self.alone = Some(index);
                self.program(index)?.irqs_off += 1;
            }
            Context::IrqsOff => {
                if self.program(index)?.irqs_off == 0 {
                    self.world.enter(cpu, Inside::IrqsOff)?;
                }
                self.program(index)?.irqs_off += 1;
            }
            Context::Mm(name) => self.world.enter(cpu, Inside::Mm(&name.value))?,
            Context::Rcu => self.world.enter(cpu, Inside::Rcu)?,
            Context::Idle => self.world.enter(cpu, Inside::Idle { polls: false })?,
            Context::PollingIdle => self.world.enter(cpu, Inside::Idle { polls: true })?,
            Context::Patch { addr, len } => {
                let (addr, len) = (self.eval(index, addr)?.bits(), self.eval(index, len)?.bits());
                self.world.enter(cpu, Inside::Patch(addr, len))?;
            }
        }
        Ok(true)
    }

    /// Ends a `with`.
    pub(super) fn leave(
        &mut self,
        index: usize,
        context: &'a Context,
        place: Span,
    ) -> Result<(), Stop> {
        self.world.at(place);
        let cpu = self.program(index)?.cpu;
        match context {
            Context::Lock(name) => {
                self.world.leave(cpu, Inside::Lock(&name.value))?;
                self.locks.remove(&name.value);
            }
            Context::StopMachine => {
                self.world.leave(cpu, Inside::StopMachine)?;
                let program = self.program(index)?;
                program.irqs_off = program.irqs_off.saturating_sub(1);
                let still = program
                    .frames
                    .iter()
                    .any(|frame| matches!(frame.after, After::Leave(Context::StopMachine, _)));
                self.alone = still.then_some(index);
            }
            Context::IrqsOff => {
                let program = self.program(index)?;
                program.irqs_off = program.irqs_off.saturating_sub(1);
                if program.irqs_off == 0 {
                    self.world.leave(cpu, Inside::IrqsOff)?;
                }
            }
            Context::Mm(name) => self.world.leave(cpu, Inside::Mm(&name.value))?,
            Context::Rcu => self.world.leave(cpu, Inside::Rcu)?,
            Context::Idle => self.world.leave(cpu, Inside::Idle { polls: false })?,
            Context::PollingIdle => self.world.leave(cpu, Inside::Idle { polls: true })?,
            // Where it was begun, the world knows.
            Context::Patch { .. } => self.world.leave(cpu, Inside::Patch(0, 0))?,
        }
        Ok(())
    }

    /// The receivers of an IPI, ascending, each once: those that are online.
    pub(super) fn targets(&self, targets: &Targets, sender: CpuId) -> Vec<CpuId> {
        let all = (0..self.cpus).map(CpuId).filter(|cpu| self.world.is_online(*cpu));
        match targets {
            Targets::All => all.collect(),
            Targets::Others => all.filter(|cpu| *cpu != sender).collect(),
            Targets::Cpus(numbers) => {
                let named = |cpu: &CpuId| numbers.iter().any(|n| n.value == u64::from(cpu.0));
                all.filter(named).collect()
            }
        }
    }

    /// Sends an IPI and runs its handler on each receiver.
    pub(super) fn ipi(
        &mut self,
        cpu: CpuId,
        targets: &[CpuId],
        handler: &'a Name,
    ) -> Result<(), Stop> {
        let file = self.file;
        let body = file.blocks.iter().find_map(|block| match &block.value {
            Block::Handler { name, body, .. } if name.value == handler.value => Some(body),
            _ => None,
        });
        let Some(body) = body else {
            return Err(Stop::NotModelled(format!("no handler `{}`", handler.value)));
        };
        let page_bytes = self.world.page_bytes();
        let mut variables = self.setup_variables.clone();
        let published = self.published.iter();
        variables.extend(published.map(|(name, value)| (name.clone(), Variable::plain(*value))));
        let mut handling = Handling {
            arch: self.arch,
            page_bytes,
            name: &handler.value,
            published: &mut self.published,
            notes: &mut self.notes,
            steps_left: &mut self.steps_left,
        };
        self.world.ipi(cpu, targets, &handler.value, &mut |world, receiver| {
            handling.body(world, receiver, body, &mut variables.clone())
        })
    }
}

/// A handler that runs on a receiver.
struct Handling<'h> {
    arch: Arch,
    page_bytes: u64,
    name: &'h str,
    published: &'h mut BTreeMap<String, Value>,
    notes: &'h mut Vec<Note>,
    steps_left: &'h mut u64,
}

impl Handling<'_> {
    /// Runs a body to its end. The recursion is as deep as the text nests, which is limited.
    fn body(
        &mut self,
        world: &mut dyn Bare,
        cpu: CpuId,
        body: &Body,
        variables: &mut Variables,
    ) -> Result<(), Stop> {
        for stmt in body {
            *self.steps_left = self
                .steps_left
                .checked_sub(1)
                .ok_or_else(|| Stop::Limit("the limit of statements was reached".to_owned()))?;
            let place = head(stmt);
            world.at(place);
            let scope = Scope { variables, page_bytes: self.page_bytes };
            match &stmt.value.kind {
                StmtKind::Op { op, args } => world.op(cpu, op, args, &scope)?,
                StmtKind::Publish { name, value } => {
                    let value = value::expr(value, &scope)?;
                    if self.published.contains_key(&name.value) {
                        return Err(Stop::Input(published_twice(name)));
                    }
                    world.publish(cpu, &name.value, value)?;
                    self.published.insert(name.value.clone(), value);
                    variables.insert(name.value.clone(), Variable::plain(value));
                }
                StmtKind::Assert(cond) => {
                    if let Some(text) = failed_assert(cond, &scope)? {
                        let text = format!("cpu {}: {text}", cpu.0);
                        self.notes.push(Note { text, place, failed_assert: true });
                    }
                }
                StmtKind::If { cond, then, otherwise } => {
                    let holds = value::cond(cond, &scope)?;
                    let body = if holds { Some(then) } else { otherwise.as_ref() };
                    if let Some(body) = body {
                        self.body(world, cpu, body, variables)?;
                    }
                }
                StmtKind::Repeat { count, var, body } => {
                    self.repeat(world, cpu, (count.value, var.as_ref(), body), variables)?;
                }
                StmtKind::When { arches, body } => {
                    if is_for(arches, self.arch) {
                        self.body(world, cpu, body, variables)?;
                    }
                }
                StmtKind::Call { call, .. } => {
                    return Err(self.not_modelled(&format!("the call `{}`", call.name.value)));
                }
                StmtKind::With { .. } => return Err(self.not_modelled("`with`")),
                StmtKind::Ipi { .. } => return Err(self.not_modelled("`ipi`")),
                StmtKind::Await(_) => return Err(self.not_modelled("`await`")),
            }
        }
        Ok(())
    }

    fn repeat(
        &mut self,
        world: &mut dyn Bare,
        cpu: CpuId,
        (count, var, body): (u64, Option<&Name>, &Body),
        variables: &mut Variables,
    ) -> Result<(), Stop> {
        let hidden = var.and_then(|var| variables.get(&var.value).copied());
        for i in 0..count {
            *self.steps_left = self
                .steps_left
                .checked_sub(1)
                .ok_or_else(|| Stop::Limit("the limit of statements was reached".to_owned()))?;
            if let Some(var) = var {
                variables.insert(var.value.clone(), Variable::plain(Value::number(i)));
            }
            self.body(world, cpu, body, variables)?;
        }
        if let Some(var) = var {
            match hidden {
                Some(hidden) => variables.insert(var.value.clone(), hidden),
                None => variables.remove(&var.value),
            };
        }
        Ok(())
    }

    fn not_modelled(&self, what: &str) -> Stop {
        Stop::NotModelled(format!("{what} in the interrupt handler `{}`", self.name))
    }
}
