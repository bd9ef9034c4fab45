//! The syntax tree of a scenario file.
//!
//! It keeps what is written: names as text, versions as text, numbers with their unit. Every part
//! that a message may have to point at is [`Spanned`]. Equality ignores the places.

use crate::span::{Span, Spanned};

/// A name, with its place.
pub type Name = Spanned<String>;

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The text after `scenario`.
    pub name: Spanned<String>,
    /// The lines before the blocks, in order.
    pub headers: Vec<Spanned<Header>>,
    /// The blocks, in order.
    pub blocks: Vec<Spanned<Block>>,
}

/// A header line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// `about "…"`: what the story is about.
    About(Spanned<String>),
    /// `kernel 5.18-rc3, 6.12`: the versions it is told on, as text.
    Kernel(Vec<Spanned<String>>),
    /// `arch x86_64, arm64`: the architectures it is told on.
    Arch(Vec<Name>),
    /// `cpus 2`.
    Cpus(Spanned<u64>),
    /// `config STRICT_MODULE_RWX = y`.
    Config {
        /// The option without `CONFIG_`.
        name: Name,
        /// Its value.
        value: Spanned<String>,
    },
    /// `feature arm64.dic = 1`: a CPU feature.
    Feature {
        /// The architecture.
        arch: Name,
        /// The feature.
        name: Name,
        /// Its value.
        value: Spanned<String>,
    },
    /// `fail vmalloc #2 allocation 3 with ENOMEM`: fault injection.
    Fail {
        /// The call that is to fail.
        call: Name,
        /// Which of its calls, counted from 1; `None`: the first.
        nth: Option<Spanned<u64>>,
        /// Which of that call's allocations, counted from 1; `None`: the first.
        allocation: Option<Spanned<u64>>,
        /// The error's name.
        errno: Name,
    },
    /// `allow wx-mapping "reason"`: findings of this rule are not reported.
    Allow {
        /// The rule.
        rule: Name,
        /// Why.
        reason: Spanned<String>,
    },
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// `setup { … }`: runs on CPU 0 before the others.
    Setup(Body),
    /// `cpu 1 { … }`: one CPU's program.
    Cpu {
        /// Its number.
        number: Spanned<u64>,
        /// Its program.
        body: Body,
    },
    /// `handler ipi NAME { … }`.
    Handler {
        /// What brings a CPU there.
        kind: Spanned<HandlerKind>,
        /// The name that `ipi` statements use.
        name: Name,
        /// What the CPU then does.
        body: Body,
    },
    /// `expect …: …`.
    Expect(Expect),
}

/// What brings a CPU into a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlerKind {
    /// An interrupt from another CPU.
    Ipi,
    /// An exception.
    Trap,
}

/// The statements between two braces.
pub type Body = Vec<Spanned<Stmt>>;

/// A statement with its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stmt {
    /// The label before the colon.
    pub label: Option<Name>,
    /// What is to be done.
    pub kind: StmtKind,
}

/// What a statement does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StmtKind {
    /// `[try] [NAME =] call`.
    Call {
        /// Written with `try`: an error ends this CPU's program.
        propagate: bool,
        /// Where the result goes; `None`: nowhere.
        assign: Option<Name>,
        /// The call.
        call: Call,
    },
    /// `publish NAME = expr`: a release store that others can await.
    Publish {
        /// The name that the others see.
        name: Name,
        /// Its value.
        value: Expr,
    },
    /// `await NAME`: the load-acquire of what is published.
    Await(Name),
    /// `assert cond`.
    Assert(Cond),
    /// `if cond { … } [else { … }]`.
    If {
        /// The condition.
        cond: Cond,
        /// When it holds.
        then: Body,
        /// When it doesn't.
        otherwise: Option<Body>,
    },
    /// `repeat 3 [as i] { … }`; the variable counts from 0.
    Repeat {
        /// How often.
        count: Spanned<u64>,
        /// The variable that counts.
        var: Option<Name>,
        /// What is repeated.
        body: Body,
    },
    /// `when x86_64, arm64 { … }`: on these architectures only.
    When {
        /// The architectures.
        arches: Vec<Name>,
        /// What is done there.
        body: Body,
    },
    /// `op dc_cvau addr`: one instruction of the architecture's table.
    Op {
        /// The row's name.
        op: Name,
        /// Its operands.
        args: Vec<Arg>,
    },
    /// `with irqs_off { … }`.
    With {
        /// What holds inside.
        context: Spanned<Context>,
        /// What is done inside.
        body: Body,
    },
    /// `ipi 1, 2 NAME`.
    Ipi {
        /// To whom.
        targets: Spanned<Targets>,
        /// The handler's name.
        handler: Name,
    },
}

impl StmtKind {
    /// The bodies within it, with nothing said about when they run.
    pub fn bodies(&self) -> Vec<&Body> {
        match self {
            StmtKind::If { then, otherwise, .. } => {
                std::iter::once(then).chain(otherwise).collect()
            }
            StmtKind::Repeat { body, .. }
            | StmtKind::When { body, .. }
            | StmtKind::With { body, .. } => vec![body],
            _ => Vec::new(),
        }
    }
}

/// What holds inside a `with`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Context {
    /// Interrupts are disabled on this CPU.
    IrqsOff,
    /// The lock of that name is held.
    Lock(Name),
    /// The address space of that name is loaded.
    Mm(Name),
    /// All other CPUs are held still.
    StopMachine,
    /// An RCU read-side section.
    Rcu,
    /// This CPU idles until an interrupt.
    Idle,
    /// This CPU idles and polls its task's flags, where its kernel does.
    PollingIdle,
    /// `patch(ADDR, LEN)`: a patcher written out in the scenario replaces these bytes.
    Patch {
        /// The first byte.
        addr: Expr,
        /// Bytes.
        len: Expr,
    },
}

/// The receivers of an IPI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// `all`: every CPU, the sender too.
    All,
    /// `others`: every CPU but the sender.
    Others,
    /// These.
    Cpus(Vec<Spanned<u64>>),
}

/// `NAME(args)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is called.
    pub name: Name,
    /// With what.
    pub args: Vec<Arg>,
}

/// An argument of a call or an operand of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A value.
    Expr(Expr),
    /// `VM_FLUSH_RESET_PERMS | VM_ALLOW_HUGE_VMAP`; never empty.
    Flags(Vec<Name>),
    /// `code(ret42)`: the bytes of a guest routine.
    Code(Name),
    /// `jit(ret42)`: the bytes that a JIT makes for a program.
    Jit(Name),
}

/// `left op right`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cond {
    /// Left side.
    pub left: Expr,
    /// The comparison.
    pub op: Spanned<CmpOp>,
    /// Right side.
    pub right: Expr,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmpOp {
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

/// A sum of products: `*`, `/` and `%` bind tighter than `+` and `-`, equals are taken from the
/// left. An operator on bits stands with itself alone, else parentheses say what is meant.
///
/// Flat instead of a tree of pairs, so that a line with very many operators costs no stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expr {
    /// The first summand.
    pub first: Product,
    /// The others, with what stands before each.
    pub rest: Vec<(SumOp, Product)>,
}

impl Expr {
    /// From its first atom to its last.
    pub fn span(&self) -> Span {
        let last = self.rest.last().map_or(&self.first, |(_, product)| product);
        self.first.span().to(last.span())
    }

    /// The variables in it, in the order in which they stand there.
    pub fn names(&self) -> Vec<(&str, Span)> {
        let mut names = Vec::new();
        self.collect_names(&mut names);
        names
    }

    fn collect_names<'a>(&'a self, names: &mut Vec<(&'a str, Span)>) {
        let products = std::iter::once(&self.first).chain(self.rest.iter().map(|(_, p)| p));
        for atom in products.flat_map(Product::factors) {
            match &atom.value {
                Atom::Name(name) => names.push((name, atom.span)),
                Atom::Paren(inner) => inner.collect_names(names),
                Atom::Int { .. } | Atom::Errno(_) => {}
            }
        }
    }
}

impl Product {
    /// From its first atom to its last.
    pub fn span(&self) -> Span {
        self.first.span.to(self.rest.last().map_or(&self.first, |(_, atom)| atom).span)
    }

    /// Its atoms.
    pub fn factors(&self) -> impl Iterator<Item = &Spanned<Atom>> {
        std::iter::once(&self.first).chain(self.rest.iter().map(|(_, atom)| atom))
    }
}

impl Cond {
    /// From the first atom to the last.
    pub fn span(&self) -> Span {
        self.left.span().to(self.right.span())
    }
}

/// What stands between two summands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `|`
    Or,
    /// `^`
    Xor,
}

impl SumOp {
    /// As it is written.
    pub const ALL: [(&'static str, SumOp); 4] =
        [("+", SumOp::Add), ("-", SumOp::Sub), ("|", SumOp::Or), ("^", SumOp::Xor)];

    /// Whether it works on bits.
    pub fn is_bitwise(self) -> bool {
        matches!(self, SumOp::Or | SumOp::Xor)
    }
}

/// What stands between two factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MulOp {
    /// `*`
    Mul,
    /// `/`, rounded down
    Div,
    /// `%`
    Rem,
    /// `&`
    And,
    /// `<<`
    Shl,
    /// `>>`
    Shr,
}

impl MulOp {
    /// As it is written.
    pub const ALL: [(&'static str, MulOp); 6] = [
        ("*", MulOp::Mul),
        ("/", MulOp::Div),
        ("%", MulOp::Rem),
        ("&", MulOp::And),
        ("<<", MulOp::Shl),
        (">>", MulOp::Shr),
    ];

    /// Whether it works on bits.
    pub fn is_bitwise(self) -> bool {
        matches!(self, MulOp::And | MulOp::Shl | MulOp::Shr)
    }
}

/// Factors; never none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// The first factor.
    pub first: Spanned<Atom>,
    /// The others, with what stands before each.
    pub rest: Vec<(MulOp, Spanned<Atom>)>,
}

/// The smallest expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Atom {
    /// `2M`, `0x40`, `512 pages`.
    Int {
        /// The number before the unit.
        value: u64,
        /// How it was written.
        radix: Radix,
        /// The unit.
        unit: Unit,
    },
    /// A variable.
    Name(String),
    /// `-EINVAL`: the value of a call that failed so.
    Errno(String),
    /// `( … )`
    Paren(Box<Expr>),
}

/// How a number is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Radix {
    /// `64`
    Decimal,
    /// `0x40`, with how many digits: code may begin with zeros.
    Hexadecimal(u8),
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Ones.
    One,
    /// `K`: 2^10.
    Kibi,
    /// `M`: 2^20.
    Mebi,
    /// `G`: 2^30.
    Gibi,
    /// `pages`: base pages of the architecture.
    Pages,
}

/// An `expect` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// When it applies; empty: always.
    pub selectors: Vec<Spanned<Selector>>,
    /// What is expected then.
    pub expected: Spanned<Expected>,
}

/// One part of what says when an `expect` line applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// An architecture, an alias, or `powerpc`.
    Arch(String),
    /// `kernel 6.12`, or `kernel 5.18..6.12` with both ends included.
    Kernel {
        /// The version, or the first one.
        from: Spanned<String>,
        /// The last one.
        to: Option<Spanned<String>>,
    },
    /// `reading strict`.
    Reading(Reading),
}

/// How strictly the architecture is read (DESIGN, section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reading {
    /// As the litmus models decide.
    Strict,
    /// Prefetch may follow any path to what is mapped.
    Mapped,
    /// Only what was executed counts as fetched.
    Fresh,
}

impl Reading {
    /// All, with their names.
    pub const ALL: [(&'static str, Reading); 3] =
        [("strict", Reading::Strict), ("mapped", Reading::Mapped), ("fresh", Reading::Fresh)];

    /// The reading of that name.
    pub fn by_name(name: &str) -> Option<Reading> {
        Reading::ALL.iter().find(|(known, _)| *known == name).map(|(_, reading)| *reading)
    }

    /// The name that files and the command line use.
    pub fn name(self) -> &'static str {
        match self {
            Reading::Strict => "strict",
            Reading::Mapped => "mapped",
            Reading::Fresh => "fresh",
        }
    }
}

/// What an `expect` line expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No finding, and all CPUs end.
    None,
    /// No finding, all CPUs end, and assertions hold or fail: the architecture leaves that open.
    Open,
    /// No finding, and a CPU that waits for what nobody publishes.
    Blocked,
    /// These findings and no others; never empty.
    Items(Vec<Spanned<Item>>),
}

/// One expected finding, or several alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The rule's name.
    pub rule: Name,
    /// Written with `?`: reported as possible, not as certain.
    pub possible: bool,
    /// The operation that is missing.
    pub missing: Option<Name>,
    /// How many findings; `None`: one.
    pub count: Option<Spanned<u64>>,
    /// The label of the statement that it is about.
    pub at: Option<Name>,
}
