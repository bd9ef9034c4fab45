//! Writes a syntax tree as source text: the canonical form, four blanks a level, one statement a
//! line. Reading it again gives an equal tree. Comments are not in the tree and so not in the text.

use std::fmt::{self, Display, Formatter, Write};

use super::ast::*;
use crate::span::Spanned;

impl<T: Display> Display for Spanned<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl Display for File {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "scenario {}", Quoted(&self.name.value))?;
        for header in &self.headers {
            writeln!(f, "{header}")?;
        }
        for block in &self.blocks {
            writeln!(f, "{block}")?;
        }
        Ok(())
    }
}

impl Display for Header {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Header::About(text) => write!(f, "about {}", Quoted(&text.value)),
            Header::Kernel(versions) => write!(f, "kernel {}", List(versions)),
            Header::Arch(arches) => write!(f, "arch {}", List(arches)),
            Header::Cpus(count) => write!(f, "cpus {count}"),
            Header::Config { name, value } => write!(f, "config {name} = {value}"),
            Header::Feature { arch, name, value } => write!(f, "feature {arch}.{name} = {value}"),
            Header::Fail { call, nth, allocation, errno } => {
                write!(f, "fail {call}")?;
                if let Some(nth) = nth {
                    write!(f, " #{nth}")?;
                }
                if let Some(allocation) = allocation {
                    write!(f, " allocation {allocation}")?;
                }
                write!(f, " with {errno}")
            }
            Header::Allow { rule, reason } => write!(f, "allow {rule} {}", Quoted(&reason.value)),
        }
    }
}

impl Display for Block {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Block::Setup(body) => {
                f.write_str("setup ")?;
                braces(f, body, 0)
            }
            Block::Cpu { number, body } => {
                write!(f, "cpu {number} ")?;
                braces(f, body, 0)
            }
            Block::Handler { kind, name, body } => {
                write!(f, "handler {kind} {name} ")?;
                braces(f, body, 0)
            }
            Block::Expect(expect) => expect.fmt(f),
        }
    }
}

impl Display for HandlerKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandlerKind::Ipi => "ipi",
            HandlerKind::Trap => "trap",
        })
    }
}

fn braces(f: &mut Formatter<'_>, body: &Body, level: usize) -> fmt::Result {
    if body.is_empty() {
        return f.write_str("{ }");
    }
    f.write_str("{\n")?;
    for stmt in body {
        indent(f, level + 1)?;
        statement(f, &stmt.value, level + 1)?;
        f.write_char('\n')?;
    }
    indent(f, level)?;
    f.write_char('}')
}

fn indent(f: &mut Formatter<'_>, level: usize) -> fmt::Result {
    write!(f, "{:width$}", "", width = 4 * level)
}

fn statement(f: &mut Formatter<'_>, stmt: &Stmt, level: usize) -> fmt::Result {
    if let Some(label) = &stmt.label {
        write!(f, "{label}: ")?;
    }
    match &stmt.kind {
        StmtKind::Call { propagate, assign, call } => {
            if *propagate {
                f.write_str("try ")?;
            }
            if let Some(name) = assign {
                write!(f, "{name} = ")?;
            }
            call.fmt(f)
        }
        StmtKind::Publish { name, value } => write!(f, "publish {name} = {value}"),
        StmtKind::Await(name) => write!(f, "await {name}"),
        StmtKind::Assert(cond) => write!(f, "assert {cond}"),
        StmtKind::If { cond, then, otherwise } => {
            write!(f, "if {cond} ")?;
            braces(f, then, level)?;
            match otherwise {
                None => Ok(()),
                Some(body) => {
                    f.write_str(" else ")?;
                    braces(f, body, level)
                }
            }
        }
        StmtKind::Repeat { count, var, body } => {
            write!(f, "repeat {count} ")?;
            if let Some(var) = var {
                write!(f, "as {var} ")?;
            }
            braces(f, body, level)
        }
        StmtKind::When { arches, body } => {
            write!(f, "when {} ", List(arches))?;
            braces(f, body, level)
        }
        StmtKind::Op { op, args } if args.is_empty() => write!(f, "op {op}"),
        StmtKind::Op { op, args } => write!(f, "op {op}({})", List(args)),
        StmtKind::With { context, body } => {
            write!(f, "with {context} ")?;
            braces(f, body, level)
        }
        StmtKind::Ipi { targets, handler } => write!(f, "ipi {targets} {handler}"),
    }
}

impl Display for Stmt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        statement(f, self, 0)
    }
}

impl Display for Context {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Context::IrqsOff => f.write_str("irqs_off"),
            Context::Lock(name) => write!(f, "lock {name}"),
            Context::Mm(name) => write!(f, "mm {name}"),
            Context::StopMachine => f.write_str("stop_machine"),
            Context::Rcu => f.write_str("rcu"),
            Context::Idle => f.write_str("idle"),
            Context::PollingIdle => f.write_str("polling_idle"),
            Context::Patch { addr, len } => write!(f, "patch({addr}, {len})"),
        }
    }
}

impl Display for Targets {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Targets::All => f.write_str("all"),
            Targets::Others => f.write_str("others"),
            Targets::Cpus(cpus) => List(cpus).fmt(f),
        }
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name, List(&self.args))
    }
}

impl Display for Arg {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Arg::Expr(expr) => expr.fmt(f),
            Arg::Flags(flags) => separated(f, flags, " | "),
            Arg::Code(name) => write!(f, "code({name})"),
            Arg::Jit(name) => write!(f, "jit({name})"),
        }
    }
}

impl Display for Cond {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.left, self.op, self.right)
    }
}

impl Display for CmpOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CmpOp::Eq => "==",
            CmpOp::Ne => "!=",
            CmpOp::Lt => "<",
            CmpOp::Le => "<=",
            CmpOp::Gt => ">",
            CmpOp::Ge => ">=",
        })
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        self.rest.iter().try_for_each(|(op, product)| write!(f, " {op} {product}"))
    }
}

impl Display for SumOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let written = SumOp::ALL.iter().find(|(_, op)| op == self);
        f.write_str(written.map_or("", |(text, _)| text))
    }
}

impl Display for MulOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let written = MulOp::ALL.iter().find(|(_, op)| op == self);
        f.write_str(written.map_or("", |(text, _)| text))
    }
}

impl Display for Product {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        self.rest.iter().try_for_each(|(op, atom)| write!(f, " {op} {atom}"))
    }
}

impl Display for Atom {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Int { value, radix, unit } => {
                match radix {
                    Radix::Decimal => write!(f, "{value}")?,
                    Radix::Hexadecimal(digits) => {
                        write!(f, "0x{value:0digits$x}", digits = usize::from(*digits))?;
                    }
                }
                f.write_str(match unit {
                    Unit::One => "",
                    Unit::Kibi => "K",
                    Unit::Mebi => "M",
                    Unit::Gibi => "G",
                    Unit::Pages => " pages",
                })
            }
            Atom::Name(name) => f.write_str(name),
            Atom::Errno(name) => write!(f, "-{name}"),
            Atom::Paren(expr) => write!(f, "({expr})"),
        }
    }
}

impl Display for Expect {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("expect")?;
        for selector in &self.selectors {
            write!(f, " {selector}")?;
        }
        write!(f, ": {}", self.expected)
    }
}

impl Display for Selector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Arch(arch) => f.write_str(arch),
            Selector::Kernel { from, to: None } => write!(f, "kernel {from}"),
            Selector::Kernel { from, to: Some(to) } => write!(f, "kernel {from}..{to}"),
            Selector::Reading(reading) => write!(f, "reading {}", reading.name()),
        }
    }
}

impl Display for Expected {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Expected::None => f.write_str("none"),
            Expected::Open => f.write_str("open"),
            Expected::Blocked => f.write_str("blocked"),
            Expected::Items(items) => List(items).fmt(f),
        }
    }
}

impl Display for Item {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.rule.fmt(f)?;
        if self.possible {
            f.write_char('?')?;
        }
        if let Some(op) = &self.missing {
            write!(f, " missing {op}")?;
        }
        if let Some(count) = &self.count {
            write!(f, " x{count}")?;
        }
        if let Some(label) = &self.at {
            write!(f, " at {label}")?;
        }
        Ok(())
    }
}

/// A string in quotes, with the escapes that the reader knows.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// Things with commas between.
struct List<'a, T>(&'a [T]);

impl<T: Display> Display for List<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        separated(f, self.0, ", ")
    }
}

fn separated<T: Display>(f: &mut Formatter<'_>, items: &[T], between: &str) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(between)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}
