//! Scenarios written in Rust instead of in a file: the same syntax tree, by calls.
//!
//! ```
//! use textbed_scenario::builder::{CmpOp, Scenario, pages};
//!
//! let scenario = Scenario::new("one page")
//!     .kernel("6.12")
//!     .arch("x86_64")
//!     .cpu(0, |p| {
//!         p.assign("page", "vmalloc", [4096.into()]);
//!         p.assign("r", "set_memory_ro", ["page".into(), pages(1).into()]);
//!         p.assert("r", CmpOp::Eq, 0);
//!     })
//!     .expect("", "none");
//! assert!(scenario.source().contains("r = set_memory_ro(page, 1 pages)"));
//! ```
//!
//! A scenario that is built is written out ([`Scenario::source`]) and read again before it is run,
//! so that its events and messages have places like those of a file, and so that both ways cannot
//! differ. A name that cannot be written is an error then ([`Scenario::file`]).

use crate::span::{Span, Spanned};
use crate::syntax::ast::{
    self, Block, Body, Cond, Context, File, HandlerKind, Header, Stmt, StmtKind, Targets,
};
use crate::syntax::{self, SyntaxError};

mod expr;

pub use self::expr::{Argument, Expr, code, errno, flags, gib, jit, kib, mib, pages};
pub use crate::syntax::ast::CmpOp;

/// A scenario under construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    file: File,
    /// `expect` lines, as texts: they have no other form worth a type of its own.
    expects: Vec<String>,
}

/// Why what was built is no scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Its text can't be read.
    #[error("line {}: {} in `{line}`", error.position, error.message())]
    Syntax {
        /// Why.
        error: SyntaxError,
        /// The line.
        line: String,
    },
    /// Its text says something else than was built: a name that is none.
    #[error("`{line}` is not what was built: is a name in it none?")]
    Different {
        /// The first line that reads back otherwise.
        line: String,
    },
}

fn at<T>(value: T) -> Spanned<T> {
    Spanned::new(value, Span::default())
}

fn name(text: impl Into<String>) -> ast::Name {
    at(text.into())
}

impl Scenario {
    /// A scenario with a name and nothing else.
    pub fn new(title: impl Into<String>) -> Self {
        let file = File { name: name(title), headers: Vec::new(), blocks: Vec::new() };
        Scenario { file, expects: Vec::new() }
    }

    fn header(mut self, header: Header) -> Self {
        self.file.headers.push(at(header));
        self
    }

    /// `about "…"`
    pub fn about(self, text: impl Into<String>) -> Self {
        self.header(Header::About(name(text)))
    }

    /// `kernel …`; may be repeated.
    pub fn kernel(self, version: impl Into<String>) -> Self {
        self.header(Header::Kernel(vec![name(version)]))
    }

    /// `arch …`; may be repeated.
    pub fn arch(self, arch: impl Into<String>) -> Self {
        self.header(Header::Arch(vec![name(arch)]))
    }

    /// `cpus N`
    pub fn cpus(self, count: u64) -> Self {
        self.header(Header::Cpus(at(count)))
    }

    /// `config NAME = value`
    pub fn config(self, option: impl Into<String>, value: impl Into<String>) -> Self {
        self.header(Header::Config { name: name(option), value: name(value) })
    }

    /// `feature arch.name = value`
    pub fn feature(
        self,
        arch: impl Into<String>,
        feature: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        let (arch, value) = (name(arch), name(value));
        self.header(Header::Feature { arch, name: name(feature), value })
    }

    /// `fail call #nth with ERRNO`; `None`: the first call.
    pub fn fail(self, call: impl Into<String>, nth: Option<u64>, errno: impl Into<String>) -> Self {
        let (call, errno) = (name(call), name(errno));
        self.header(Header::Fail { call, nth: nth.map(at), allocation: None, errno })
    }

    /// `fail call #nth allocation N with ENOMEM`; `None`: the first call.
    pub fn fail_allocation(
        self,
        call: impl Into<String>,
        nth: Option<u64>,
        allocation: u64,
    ) -> Self {
        let (call, errno) = (name(call), name("ENOMEM"));
        let allocation = Some(at(allocation));
        self.header(Header::Fail { call, nth: nth.map(at), allocation, errno })
    }

    /// `allow rule "reason"`
    pub fn allow(self, rule: impl Into<String>, reason: impl Into<String>) -> Self {
        self.header(Header::Allow { rule: name(rule), reason: name(reason) })
    }

    fn block(mut self, block: Block) -> Self {
        self.file.blocks.push(at(block));
        self
    }

    /// `setup { … }`
    pub fn setup(self, build: impl FnOnce(&mut Program)) -> Self {
        self.block(Block::Setup(body(build)))
    }

    /// `cpu N { … }`
    pub fn cpu(self, number: u64, build: impl FnOnce(&mut Program)) -> Self {
        self.block(Block::Cpu { number: at(number), body: body(build) })
    }

    /// `handler ipi NAME { … }`
    pub fn ipi_handler(self, handler: impl Into<String>, build: impl FnOnce(&mut Program)) -> Self {
        let kind = at(HandlerKind::Ipi);
        self.block(Block::Handler { kind, name: name(handler), body: body(build) })
    }

    /// `handler trap NAME { … }`
    pub fn trap_handler(
        self,
        handler: impl Into<String>,
        build: impl FnOnce(&mut Program),
    ) -> Self {
        let kind = at(HandlerKind::Trap);
        self.block(Block::Handler { kind, name: name(handler), body: body(build) })
    }

    /// `expect selectors: expected`, both as a file says them.
    pub fn expect(mut self, selectors: &str, expected: &str) -> Self {
        let blank = if selectors.is_empty() { "" } else { " " };
        self.expects.push(format!("expect{blank}{selectors}: {expected}"));
        self
    }

    /// The text of the scenario; `expect` lines stand at its end.
    pub fn source(&self) -> String {
        let mut text = self.file.to_string();
        for line in &self.expects {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// The text and its syntax tree.
    ///
    /// # Errors
    /// Something in it can't be written as it was built.
    pub fn file(&self) -> Result<(String, File), BuildError> {
        let text = self.source();
        let read = syntax::parse(&text).map_err(|error| {
            let line = text.lines().nth(error.position.line.saturating_sub(1)).unwrap_or("");
            BuildError::Syntax { line: line.to_owned(), error }
        })?;
        let built = self.file.blocks.len();
        let expects = read.blocks.len().saturating_sub(built);
        let only_expects =
            read.blocks.iter().skip(built).all(|b| matches!(b.value, Block::Expect(_)));
        let same = read.name == self.file.name
            && read.headers == self.file.headers
            && read.blocks.get(..built) == Some(self.file.blocks.as_slice())
            && expects == self.expects.len()
            && only_expects;
        if same {
            return Ok((text, read));
        }
        let again = read.to_string();
        let differs = text.lines().zip(again.lines()).find(|(a, b)| a != b);
        let line = differs.map_or("the text", |(line, _)| line).to_owned();
        Err(BuildError::Different { line })
    }
}

fn body(build: impl FnOnce(&mut Program)) -> Body {
    let mut program = Program::default();
    build(&mut program);
    program.body
}

/// The statements of a block under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    body: Body,
    label: Option<ast::Name>,
}

impl Program {
    fn add(&mut self, kind: StmtKind) {
        let label = self.label.take();
        self.body.push(at(Stmt { label, kind }));
    }

    /// Gives the next statement a label.
    pub fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = Some(name(label));
        self
    }

    fn add_call(
        &mut self,
        propagate: bool,
        assign: Option<ast::Name>,
        call: String,
        args: impl IntoIterator<Item = Argument>,
    ) {
        let args = args.into_iter().map(|arg| arg.0).collect();
        let call = ast::Call { name: name(call), args };
        self.add(StmtKind::Call { propagate, assign, call });
    }

    /// `call(args)`
    pub fn call(&mut self, call: impl Into<String>, args: impl IntoIterator<Item = Argument>) {
        self.add_call(false, None, call.into(), args);
    }

    /// `var = call(args)`
    pub fn assign(
        &mut self,
        var: impl Into<String>,
        call: impl Into<String>,
        args: impl IntoIterator<Item = Argument>,
    ) {
        self.add_call(false, Some(name(var)), call.into(), args);
    }

    /// `try call(args)`
    pub fn try_call(&mut self, call: impl Into<String>, args: impl IntoIterator<Item = Argument>) {
        self.add_call(true, None, call.into(), args);
    }

    /// `try var = call(args)`
    pub fn try_assign(
        &mut self,
        var: impl Into<String>,
        call: impl Into<String>,
        args: impl IntoIterator<Item = Argument>,
    ) {
        self.add_call(true, Some(name(var)), call.into(), args);
    }

    /// `publish name = value`
    pub fn publish(&mut self, published: impl Into<String>, value: impl Into<Expr>) {
        self.add(StmtKind::Publish { name: name(published), value: value.into().0 });
    }

    /// `await name`
    pub fn wait_for(&mut self, published: impl Into<String>) {
        self.add(StmtKind::Await(name(published)));
    }

    /// `assert left op right`
    pub fn assert(&mut self, left: impl Into<Expr>, op: CmpOp, right: impl Into<Expr>) {
        self.add(StmtKind::Assert(cond(left.into(), op, right.into())));
    }

    /// `if left op right { … }`
    pub fn when_true(
        &mut self,
        (left, op, right): (impl Into<Expr>, CmpOp, impl Into<Expr>),
        then: impl FnOnce(&mut Program),
    ) {
        let cond = cond(left.into(), op, right.into());
        self.add(StmtKind::If { cond, then: body(then), otherwise: None });
    }

    /// `if left op right { … } else { … }`
    pub fn either(
        &mut self,
        (left, op, right): (impl Into<Expr>, CmpOp, impl Into<Expr>),
        then: impl FnOnce(&mut Program),
        otherwise: impl FnOnce(&mut Program),
    ) {
        let cond = cond(left.into(), op, right.into());
        let otherwise = Some(body(otherwise));
        self.add(StmtKind::If { cond, then: body(then), otherwise });
    }

    /// `repeat count [as var] { … }`
    pub fn repeat(&mut self, count: u64, var: Option<&str>, inner: impl FnOnce(&mut Program)) {
        let var = var.map(name);
        self.add(StmtKind::Repeat { count: at(count), var, body: body(inner) });
    }

    /// `when arches { … }`
    pub fn on(&mut self, arches: &[&str], inner: impl FnOnce(&mut Program)) {
        let arches = arches.iter().map(|arch| name(*arch)).collect();
        self.add(StmtKind::When { arches, body: body(inner) });
    }

    /// `op name(args)`
    pub fn op(&mut self, op: impl Into<String>, args: impl IntoIterator<Item = Argument>) {
        let args = args.into_iter().map(|arg| arg.0).collect();
        self.add(StmtKind::Op { op: name(op), args });
    }

    fn with(&mut self, context: Context, inner: impl FnOnce(&mut Program)) {
        self.add(StmtKind::With { context: at(context), body: body(inner) });
    }

    /// `with irqs_off { … }`
    pub fn with_irqs_off(&mut self, inner: impl FnOnce(&mut Program)) {
        self.with(Context::IrqsOff, inner);
    }

    /// `with lock NAME { … }`
    pub fn with_lock(&mut self, lock: impl Into<String>, inner: impl FnOnce(&mut Program)) {
        self.with(Context::Lock(name(lock)), inner);
    }

    /// `with mm NAME { … }`
    pub fn with_mm(&mut self, mm: impl Into<String>, inner: impl FnOnce(&mut Program)) {
        self.with(Context::Mm(name(mm)), inner);
    }

    /// `with stop_machine { … }`
    pub fn with_stop_machine(&mut self, inner: impl FnOnce(&mut Program)) {
        self.with(Context::StopMachine, inner);
    }

    /// `with rcu { … }`
    pub fn with_rcu(&mut self, inner: impl FnOnce(&mut Program)) {
        self.with(Context::Rcu, inner);
    }

    /// `with idle { … }`
    pub fn with_idle(&mut self, inner: impl FnOnce(&mut Program)) {
        self.with(Context::Idle, inner);
    }

    /// `with polling_idle { … }`
    pub fn with_polling_idle(&mut self, inner: impl FnOnce(&mut Program)) {
        self.with(Context::PollingIdle, inner);
    }

    /// `with patch(ADDR, LEN) { … }`
    pub fn with_patch(
        &mut self,
        addr: impl Into<Expr>,
        len: impl Into<Expr>,
        inner: impl FnOnce(&mut Program),
    ) {
        self.with(Context::Patch { addr: addr.into().0, len: len.into().0 }, inner);
    }

    /// `ipi all handler`
    pub fn ipi_all(&mut self, handler: impl Into<String>) {
        self.add(StmtKind::Ipi { targets: at(Targets::All), handler: name(handler) });
    }

    /// `ipi others handler`
    pub fn ipi_others(&mut self, handler: impl Into<String>) {
        self.add(StmtKind::Ipi { targets: at(Targets::Others), handler: name(handler) });
    }

    /// `ipi N, N handler`
    pub fn ipi(&mut self, cpus: &[u64], handler: impl Into<String>) {
        let targets = at(Targets::Cpus(cpus.iter().map(|cpu| at(*cpu)).collect()));
        self.add(StmtKind::Ipi { targets, handler: name(handler) });
    }
}

fn cond(left: Expr, op: CmpOp, right: Expr) -> Cond {
    Cond { left: left.0, op: at(op), right: right.0 }
}

#[cfg(test)]
mod tests;
