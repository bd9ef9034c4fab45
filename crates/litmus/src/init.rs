//! The initial state, and the condition: names, values, formulas.

use std::collections::BTreeMap;

use textbed_arch::VirtAddr;

use crate::asm::{assemble, number, register};
use crate::condition::{Atom, Condition, FaultKind, Formula, Quantifier};
use crate::error::{LitmusError, Problem};
use crate::parse::{DATA_BASE, Place, Thread};

/// Words before a name that are types.
const TYPES: [&str; 12] = [
    "int", "int8_t", "int16_t", "int32_t", "int64_t", "uint8_t", "uint16_t", "uint32_t",
    "uint64_t", "ins_t", "void", "char",
];
/// Most locations.
const MOST_PLACES: usize = 256;

/// What names stand for.
pub(crate) struct Names {
    pub(crate) places: Vec<Place>,
    labels: Vec<BTreeMap<String, VirtAddr>>,
}

impl Names {
    pub(crate) fn new(threads: &[Thread]) -> Self {
        let labels = threads.iter().map(|t| t.labels.clone()).collect();
        Self { places: Vec::new(), labels }
    }

    /// The location, made if it is new.
    fn place(&mut self, name: &str) -> Result<&mut Place, Problem> {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(word) || name.starts_with(|c: char| c.is_numeric())
        {
            return Err(Problem::Init(format!("'{name}' is not the name of a location")));
        }
        let known = self.places.iter().position(|p| p.name == name);
        let index = match known {
            Some(index) => index,
            None if self.places.len() >= MOST_PLACES => {
                return Err(Problem::NotModelled(format!("more than {MOST_PLACES} locations")));
            }
            None => {
                let virt = VirtAddr(DATA_BASE + self.places.len() as u64 * 0x1000);
                let name = name.to_owned();
                self.places.push(Place { name, virt, value: 0, alias_of: None });
                self.places.len() - 1
            }
        };
        Ok(&mut self.places[index])
    }

    /// `P1:label`.
    fn label(&self, text: &str) -> Option<Result<VirtAddr, Problem>> {
        let (thread, label) = text.strip_prefix('P')?.split_once(':')?;
        let thread: usize = thread.parse().ok()?;
        let found = self.labels.get(thread).and_then(|l| l.get(label.trim())).copied();
        Some(found.ok_or_else(|| Problem::Label(text.to_owned(), "not defined")))
    }

    /// A value: a number, an instruction, a label, a location.
    fn value(&mut self, text: &str) -> Result<u64, Problem> {
        let text = text.trim();
        let quoted = |prefix: &str| {
            let rest = text.strip_prefix(prefix)?.trim();
            rest.strip_prefix('"')?.strip_suffix('"')
        };
        if let Some(inner) = quoted("instr:") {
            return assemble(inner, 0, &|_| None).map(u64::from);
        }
        if text == "NOP" {
            return assemble("NOP", 0, &|_| None).map(u64::from);
        }
        let text = quoted("label:").unwrap_or(text);
        if let Some(value) = number(text) {
            return Ok(value);
        }
        if let Some(found) = self.label(text) {
            return found.map(|v| v.0);
        }
        Ok(self.place(text)?.virt.0)
    }
}

/// `1:X3`.
fn thread_register(text: &str) -> Option<(usize, u8)> {
    let (thread, name) = text.split_once(':')?;
    let (n, _) = register(name)?;
    Some((thread.trim().parse().ok()?, n as u8))
}

/// Reads the assignments of the initial state.
pub(crate) fn read(
    initial: &[(usize, String)],
    names: &mut Names,
    threads: &mut [Thread],
) -> Result<(), LitmusError> {
    for (line, text) in initial {
        let text = untyped(text);
        if !text.is_empty() {
            assign(text, names, threads).map_err(|p| p.at(*line))?;
        }
    }
    Ok(())
}

/// Without a type in front, and without the `*` of a pointer.
fn untyped(text: &str) -> &str {
    let mut text = text.trim();
    while let Some((first, rest)) = text.split_once(|c: char| c.is_whitespace() || c == '*')
        && (TYPES.contains(&first) || first.is_empty())
    {
        text = rest.trim_start();
    }
    text.trim_start_matches('*').trim()
}

fn assign(text: &str, names: &mut Names, threads: &mut [Thread]) -> Result<(), Problem> {
    let (target, value) = match text.split_once('=') {
        Some((target, value)) => (target.trim(), Some(value.trim())),
        None => (text, None),
    };
    if let Some((thread, n)) = thread_register(target) {
        let Some(value) = value else { return Ok(()) };
        let value = names.value(value)?;
        let Some(thread) = threads.get_mut(thread) else {
            return Err(Problem::Init(format!("'{target}': there is no such thread")));
        };
        if n < 31 {
            thread.registers.retain(|(r, _)| *r != n);
            thread.registers.push((n, value));
        }
        return Ok(());
    }
    if let Some(of) = target.strip_prefix("pte_") {
        return alias(of, value.unwrap_or(""), names);
    }
    let name = target.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(target);
    let value = value.map(|v| names.value(v)).transpose()?;
    let place = names.place(name.trim())?;
    if let Some(value) = value {
        place.value = value;
    }
    Ok(())
}

/// `pte_NAME=(oa:phy_PLACE)`: the page of NAME leads to the frame of PLACE. NAME is the place
/// itself (nothing changes) or a label: then the place is another name of the label's bytes.
fn alias(of: &str, value: &str, names: &mut Names) -> Result<(), Problem> {
    let refused = || Problem::NotModelled(format!("page-table entry 'pte_{of}={value}'"));
    let inner = value.strip_prefix('(').and_then(|v| v.strip_suffix(')')).ok_or_else(refused)?;
    let place = inner.trim().strip_prefix("oa:").and_then(|v| v.trim().strip_prefix("phy_"));
    let place = place.ok_or_else(refused)?.trim();
    if place == of {
        return names.place(place).map(|_| ());
    }
    let found: Vec<VirtAddr> = names.labels.iter().filter_map(|l| l.get(of)).copied().collect();
    let [label] = found.as_slice() else { return Err(refused()) };
    let place = names.place(place)?;
    place.virt = VirtAddr(place.virt.0 | label.page_offset());
    place.alias_of = Some(*label);
    Ok(())
}

/// Reads what follows the program.
pub(crate) fn condition(
    tail: &[(usize, &str)],
    names: &mut Names,
    threads: usize,
) -> Result<Condition, LitmusError> {
    let none = Condition { quantifier: Quantifier::ForAll, formula: Formula::True };
    let Some((line, _)) = tail.first() else { return Ok(none) };
    let line = *line;
    let joined: Vec<&str> = tail.iter().map(|(_, l)| *l).collect();
    let joined = joined.join(" ");
    let mut text = joined.trim();
    if let Some(rest) = text.strip_prefix("locations") {
        // What to print, which is no condition.
        let Some((_, rest)) = rest.split_once(']') else {
            return Err(Problem::Condition("'locations [' without ']'".to_owned()).at(line));
        };
        text = rest.trim().trim_start_matches(';').trim();
    }
    if text.is_empty() {
        return Ok(none);
    }
    if text.starts_with("filter") {
        return Err(Problem::NotModelled("filter".to_owned()).at(line));
    }
    let heads = [
        ("~exists", Quantifier::NotExists),
        ("exists", Quantifier::Exists),
        ("forall", Quantifier::ForAll),
    ];
    let head = heads.iter().find_map(|(w, q)| text.strip_prefix(w).map(|rest| (rest, *q)));
    let Some((rest, quantifier)) = head else {
        return Err(Problem::Condition(format!("'{text}'")).at(line));
    };
    let mut reader = Reader { rest: rest.trim().trim_end_matches(';'), names, threads, depth: 0 };
    let formula = reader.either().map_err(|p| p.at(line))?;
    if !reader.rest.trim().is_empty() {
        return Err(Problem::Condition(format!("'{}' is left", reader.rest.trim())).at(line));
    }
    Ok(Condition { quantifier, formula })
}

/// Reads a formula from left to right.
struct Reader<'a> {
    rest: &'a str,
    names: &'a mut Names,
    threads: usize,
    depth: usize,
}

impl Reader<'_> {
    fn eat(&mut self, what: &str) -> bool {
        match self.rest.trim_start().strip_prefix(what) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn either(&mut self) -> Result<Formula, Problem> {
        let mut left = self.both()?;
        while self.eat("\\/") {
            left = Formula::Or(Box::new(left), Box::new(self.both()?));
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Formula, Problem> {
        let mut left = self.one()?;
        while self.eat("/\\") {
            left = Formula::And(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Formula, Problem> {
        self.depth += 1;
        if self.depth > 64 {
            return Err(Problem::Condition("nested too deep".to_owned()));
        }
        let found = self.inner();
        self.depth -= 1;
        found
    }

    fn inner(&mut self) -> Result<Formula, Problem> {
        if self.eat("not") || self.eat("~") {
            return Ok(Formula::Not(Box::new(self.one()?)));
        }
        if self.eat("true") {
            return Ok(Formula::True);
        }
        if self.eat("fault") {
            return self.fault();
        }
        if self.eat("(") {
            let inner = self.either()?;
            return if self.eat(")") {
                Ok(inner)
            } else {
                Err(Problem::Condition(format!("')' is missing before '{}'", self.rest)))
            };
        }
        // An equation reaches to the next connective or bracket outside of a string.
        let text = self.rest;
        let mut string = false;
        let ends = |(_, c): &(usize, char)| {
            string ^= *c == '"';
            !string && (*c == ')' || *c == '/' || *c == '\\')
        };
        let end = text.char_indices().find(ends).map_or(text.len(), |(i, _)| i);
        let (equation, rest) = text.split_at(end);
        self.rest = rest;
        let bad = || Problem::Condition(format!("'{}' is not an equation", equation.trim()));
        let (target, value) = equation.split_once('=').ok_or_else(bad)?;
        let value = self.names.value(value)?;
        let target = target.trim();
        let atom = match thread_register(target) {
            Some((thread, _)) if thread >= self.threads => {
                return Err(Problem::Condition(format!("'{target}': there is no such thread")));
            }
            Some((thread, n)) => Atom::Register(thread, n, value),
            None => {
                let name = target.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
                Atom::Memory(self.names.place(name.unwrap_or(target))?.virt, 8, value)
            }
        };
        Ok(Formula::Atom(atom))
    }

    /// `fault(P0:L0,UndefinedInstruction)`.
    fn fault(&mut self) -> Result<Formula, Problem> {
        let bad = |text: &str| Problem::Condition(format!("'fault{text}'"));
        let whole = self.rest;
        let inner = whole.trim_start().strip_prefix('(').ok_or_else(|| bad(whole))?;
        let (inner, rest) = inner.split_once(')').ok_or_else(|| bad(whole))?;
        self.rest = rest;
        let mut parts = inner.split(',').map(str::trim);
        let site = parts.next().unwrap_or("");
        let thread = site.strip_prefix('P').and_then(|s| s.split_once(':'));
        let thread = thread.and_then(|(n, _)| n.parse().ok()).ok_or_else(|| bad(whole))?;
        let virt = self.names.label(site).ok_or_else(|| bad(whole))??;
        let kind = match parts.next() {
            None => FaultKind::Any,
            Some("UndefinedInstruction") => FaultKind::Undefined,
            Some(other) => return Err(Problem::NotModelled(format!("fault '{other}'"))),
        };
        Ok(Formula::Atom(Atom::Fault(thread, virt, kind)))
    }
}
