//! Every class of some threads: which values loads and fetches can return, which stores these came
//! from, in which order stores of an address are.
//!
//! A thread is run once for each combination of values that its loads and fetches could return;
//! which values there are is found by running until no new one is stored. Addresses that nobody
//! stores to hold their initial value, and fetches from them are no steps.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::class::{Class, Kind};
use super::local::Local;
use super::step::{Answer, Deps, Side, Step};

/// What a thread does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// This step.
    Do(Step),
    /// Nothing more.
    End,
}

/// A thread: a program, its registers, where it is.
pub trait Thread: Clone {
    /// The next step. `answer` is what the step before returned, if that was a load or a fetch.
    fn next(&mut self, answer: Option<Answer>) -> Ask;
}

/// How much is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Steps of one thread, fetches of unchanging code with them; a run that needs more is left
    /// out and counted.
    pub steps: usize,
    /// Runs of one thread.
    pub runs: usize,
    /// Classes.
    pub classes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 300, runs: 1 << 14, classes: 1 << 22 }
    }
}

/// More than the limits allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TooMuch {
    /// Of the runs of one thread.
    #[error("a thread has more than {0} runs")]
    Runs(usize),
    /// Of classes.
    #[error("there are more than {0} classes")]
    Classes(u64),
    /// Effects of one class.
    #[error("a class has {0} effects; at most 128 are modelled")]
    Effects(usize),
    /// Values stored.
    #[error("{0} different values are stored; at most 128 are modelled")]
    Values(usize),
}

/// What an exploration came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Explored {
    /// Classes visited.
    pub classes: u64,
    /// Runs of threads that went on for longer than the limit.
    pub cut: u64,
}

/// One run of a thread.
#[derive(Debug)]
pub(super) struct Run<T> {
    pub(super) steps: Vec<Step>,
    pub(super) local: Local,
    end: T,
    /// Effects that returned a value: place, address, value.
    reads: Vec<(usize, u64, u64)>,
    /// Stores: place, address, value.
    stores: Vec<(usize, u64, u64)>,
    /// Numbers of the values that it needs from a store, and of those that it stores.
    needs: u128,
    has: u128,
}

/// Values by address: the initial one first.
type Values = BTreeMap<u64, Vec<u64>>;

/// A search in progress.
struct Search<'a, T> {
    limits: Limits,
    memory: &'a dyn Fn(u64) -> u64,
    values: Values,
    runs: Vec<Vec<Run<T>>>,
    explored: Explored,
}

/// Visits every class whose loads and stores follow coherence; whether it is *possible* is for the
/// visitor to ask. `memory` has the initial value
/// of an address; classes whose threads end in a state that is not `wanted` are skipped.
///
/// # Errors
/// More than `limits` allow.
pub fn explore<T: Thread>(
    threads: &[T],
    side: Side,
    memory: &dyn Fn(u64) -> u64,
    limits: Limits,
    wanted: &dyn Fn(&[&T]) -> bool,
    visit: &mut dyn FnMut(&Class<'_>, &[&T]) -> ControlFlow<()>,
) -> Result<Explored, TooMuch> {
    let explored = Explored::default();
    let (values, runs) = (Values::new(), Vec::new());
    let mut search = Search { limits, memory, values, runs, explored };
    search.run_threads(threads)?;
    let mut chosen = Vec::new();
    let Search { runs, mut explored, .. } = search;
    let pick = Pick { side, limits, memory, runs: &runs, wanted };
    pick.choose(&mut chosen, &mut explored, visit).map(|_| explored)
}

impl<T: Thread> Search<'_, T> {
    /// Runs all threads until no value turns up that was not known.
    fn run_threads(&mut self, threads: &[T]) -> Result<(), TooMuch> {
        loop {
            self.explored.cut = 0;
            self.runs.clear();
            for (cpu, thread) in threads.iter().enumerate() {
                let runs = self.runs_of(cpu as u16, thread)?;
                self.runs.push(runs);
            }
            let mut new = false;
            let stores = self.runs.iter().flatten().flat_map(|r| &r.stores);
            for (_, at, value) in stores {
                let initial = (self.memory)(*at);
                let known = self.values.entry(*at).or_insert_with(|| {
                    new = true;
                    vec![initial]
                });
                if !known.contains(value) {
                    known.push(*value);
                    new = true;
                }
            }
            if !new {
                return self.number_values();
            }
        }
    }

    fn number_values(&mut self) -> Result<(), TooMuch> {
        let stored = |at: &u64, list: &[u64]| {
            let at = *at;
            list.iter().skip(1).map(move |v| (at, *v)).collect::<Vec<_>>()
        };
        let all: Vec<(u64, u64)> =
            self.values.iter().flat_map(|(at, list)| stored(at, list)).collect();
        if all.len() > 128 {
            return Err(TooMuch::Values(all.len()));
        }
        let bit = |at: u64, value: u64| {
            let place = all.binary_search(&(at, value)).ok();
            place.or_else(|| all.iter().position(|v| *v == (at, value))).map_or(0, |n| 1u128 << n)
        };
        for run in self.runs.iter_mut().flatten() {
            run.needs = run.reads.iter().fold(0, |set, (_, at, v)| set | bit(*at, *v));
            run.has = run.stores.iter().fold(0, |set, (_, at, v)| set | bit(*at, *v));
        }
        Ok(())
    }

    fn runs_of(&mut self, cpu: u16, thread: &T) -> Result<Vec<Run<T>>, TooMuch> {
        struct Open<T> {
            thread: T,
            answer: Option<Answer>,
            steps: Vec<Step>,
            read: Vec<u64>,
            loads: usize,
            asked: usize,
        }
        let mut open = vec![Open {
            thread: thread.clone(),
            answer: None,
            steps: Vec::new(),
            read: Vec::new(),
            loads: 0,
            asked: 0,
        }];
        let mut done = Vec::new();
        while let Some(mut at) = open.pop() {
            let ask = at.thread.next(at.answer.take());
            at.asked += 1;
            let Ask::Do(step) = ask else {
                if done.len() >= self.limits.runs {
                    return Err(TooMuch::Runs(self.limits.runs));
                }
                done.push(Run::of(cpu, at.steps, &at.read, at.thread)?);
                continue;
            };
            if at.asked > self.limits.steps {
                self.explored.cut += 1;
                continue;
            }
            let (word, deps) = match step {
                Step::Load { at: word, .. } => {
                    at.loads += 1;
                    (word, Deps::load(at.loads - 1))
                }
                Step::Fetch { at: word } => (word, Deps::NONE),
                _ => {
                    at.steps.push(step);
                    open.push(at);
                    continue;
                }
            };
            let Some(values) = self.values.get(&word) else {
                let value = (self.memory)(word);
                if matches!(step, Step::Load { .. }) {
                    at.steps.push(step);
                    at.read.push(value);
                }
                at.answer = Some(Answer { value, deps });
                open.push(at);
                continue;
            };
            if open.len() + done.len() > self.limits.runs {
                return Err(TooMuch::Runs(self.limits.runs));
            }
            at.steps.push(step);
            for value in values.iter().rev() {
                let mut read = at.read.clone();
                read.push(*value);
                open.push(Open {
                    thread: at.thread.clone(),
                    answer: Some(Answer { value: *value, deps }),
                    steps: at.steps.clone(),
                    read,
                    ..at
                });
            }
        }
        Ok(done)
    }
}

impl<T> Run<T> {
    fn of(cpu: u16, steps: Vec<Step>, read: &[u64], end: T) -> Result<Self, TooMuch> {
        let effects = steps.iter().filter(|s| Kind::of(s).is_some()).count();
        if effects > 128 {
            return Err(TooMuch::Effects(effects));
        }
        let local = Local::of(cpu, &steps);
        let (mut reads, mut stores, mut read) = (Vec::new(), Vec::new(), read.iter());
        for (place, effect) in local.effects.iter().enumerate() {
            match (effect.kind, steps[effect.step]) {
                (Kind::Load(at) | Kind::Fetch(at), _) => {
                    reads.extend(read.next().map(|value| (place, at, *value)));
                }
                (Kind::Store(at), Step::Store { value, .. }) => stores.push((place, at, value)),
                _ => {}
            }
        }
        Ok(Run { steps, local, end, reads, stores, needs: 0, has: 0 })
    }
}

/// Chooses a run of each thread, then where values came from.
struct Pick<'a, T> {
    side: Side,
    limits: Limits,
    memory: &'a dyn Fn(u64) -> u64,
    runs: &'a [Vec<Run<T>>],
    wanted: &'a dyn Fn(&[&T]) -> bool,
}

type Visit<'v, T> = &'v mut dyn FnMut(&Class<'_>, &[&T]) -> ControlFlow<()>;

impl<'a, T> Pick<'a, T> {
    fn choose(
        &self,
        chosen: &mut Vec<&'a Run<T>>,
        explored: &mut Explored,
        visit: Visit<'_, T>,
    ) -> Result<ControlFlow<()>, TooMuch> {
        if let Some(runs) = self.runs.get(chosen.len()) {
            for run in runs {
                chosen.push(run);
                let flow = self.choose(chosen, explored, visit)?;
                chosen.pop();
                if flow.is_break() {
                    return Ok(flow);
                }
            }
            return Ok(ControlFlow::Continue(()));
        }
        let (needs, has) = chosen.iter().fold((0, 0), |(n, h), r| (n | r.needs, h | r.has));
        if needs & !has != 0 {
            return Ok(ControlFlow::Continue(()));
        }
        let ends: Vec<&T> = chosen.iter().map(|r| &r.end).collect();
        if !(self.wanted)(&ends) {
            return Ok(ControlFlow::Continue(()));
        }
        let mut class = Class::of(self.side, chosen);
        if class.effects.len() > 128 {
            return Err(TooMuch::Effects(class.effects.len()));
        }
        let mut words: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut values = vec![0; class.effects.len()];
        let mut reads = Vec::new();
        for (run, first) in chosen.iter().zip(&class.first) {
            for (place, at, value) in &run.stores {
                words.entry(*at).or_default().push(first + place);
                values[first + place] = *value;
            }
            reads.extend(run.reads.iter().map(|(place, at, value)| (first + place, *at, *value)));
        }
        class.stores = words.into_iter().collect();
        self.order_stores(&mut class, 0, &values, &reads, &ends, explored, visit)
    }

    /// Every coherence order of the words from `from` on.
    #[allow(clippy::too_many_arguments)] // one step of a recursion
    fn order_stores(
        &self,
        class: &mut Class<'a>,
        from: usize,
        values: &[u64],
        reads: &[(usize, u64, u64)],
        ends: &[&T],
        explored: &mut Explored,
        visit: Visit<'_, T>,
    ) -> Result<ControlFlow<()>, TooMuch> {
        let Some((_, stores)) = class.stores.get(from) else {
            return self.sources(class, values, reads, ends, explored, visit);
        };
        // Stores of one CPU are in program order, which is that of their places.
        let mut orders = vec![Vec::new()];
        for _ in 0..stores.len() {
            let mut longer = Vec::new();
            for order in orders {
                for next in stores.iter().filter(|s| !order.contains(*s)) {
                    let cpu = class.effects[*next].cpu;
                    let own = |s: &&usize| class.effects[**s].cpu == cpu && *s < next;
                    if stores.iter().filter(own).all(|s| order.contains(s)) {
                        let mut order: Vec<usize> = order.clone();
                        order.push(*next);
                        longer.push(order);
                    }
                }
            }
            orders = longer;
        }
        for order in orders {
            class.stores[from].1 = order;
            let flow = self.order_stores(class, from + 1, values, reads, ends, explored, visit)?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        // As it was, for the next order of the words before.
        class.stores[from].1.sort_unstable();
        Ok(ControlFlow::Continue(()))
    }

    /// Every choice of the stores that loads and fetches returned.
    fn sources(
        &self,
        class: &mut Class<'a>,
        values: &[u64],
        reads: &[(usize, u64, u64)],
        ends: &[&T],
        explored: &mut Explored,
        visit: Visit<'_, T>,
    ) -> Result<ControlFlow<()>, TooMuch> {
        let mut choices: Vec<(usize, Vec<usize>)> = Vec::with_capacity(reads.len());
        for (place, at, value) in reads {
            let stored = class.stores_of(*at).iter().enumerate();
            let mut from: Vec<usize> =
                stored.filter(|(_, s)| values[**s] == *value).map(|(n, _)| n + 1).collect();
            if (self.memory)(*at) == *value {
                from.push(0);
            }
            if from.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            choices.push((*place, from));
        }
        let mut at = vec![0usize; choices.len()];
        loop {
            for (n, (place, from)) in at.iter().zip(&choices) {
                class.returned[*place] = from[*n];
            }
            if class.is_coherent() {
                explored.classes += 1;
                if explored.classes > self.limits.classes {
                    return Err(TooMuch::Classes(self.limits.classes));
                }
                if visit(class, ends).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            let Some(next) = (0..at.len()).rev().find(|n| at[*n] + 1 < choices[*n].1.len()) else {
                return Ok(ControlFlow::Continue(()));
            };
            at[next] += 1;
            at[next + 1..].fill(0);
        }
    }
}
