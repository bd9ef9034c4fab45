//! Reading what was printed gives the same tree; noise never panics.

use proptest::prelude::*;

use super::*;
use crate::span::{Span, Spanned};
use crate::syntax::parse_bytes;

fn at<T>(value: T) -> Spanned<T> {
    Spanned::new(value, Span::default())
}

fn variable() -> impl Strategy<Value = Name> {
    "[a-z_][a-zA-Z0-9_]{0,8}"
        .prop_filter("words of the language", |s| {
            let reserved = ["try", "publish", "await", "assert", "if", "else", "repeat", "when"];
            let reserved = reserved.into_iter().chain(["op", "with", "ipi"]);
            s.contains(|c: char| c.is_ascii_lowercase()) && !reserved.into_iter().any(|r| r == s)
        })
        .prop_map(at)
}

fn word(pattern: &'static str) -> impl Strategy<Value = Name> {
    pattern.prop_map(at)
}

fn string() -> impl Strategy<Value = Spanned<String>> {
    prop_oneof![any::<String>(), "[ -~\\n\\t\"\\\\]{0,20}"].prop_map(at)
}

fn version() -> impl Strategy<Value = Spanned<String>> {
    "[0-9]{1,2}(\\.[0-9]{1,3}){0,3}(-rc[0-9])?(-[a-z0-9]{1,4})?".prop_map(at)
}

fn flag() -> impl Strategy<Value = Name> {
    word("[A-Z][A-Z0-9_]{0,10}")
}

fn count() -> impl Strategy<Value = Spanned<u64>> {
    prop_oneof![0..5u64, any::<u64>()].prop_map(at)
}

fn integer() -> impl Strategy<Value = Atom> {
    let radix = prop_oneof![Just(None), (0..20u8).prop_map(Some)];
    let unit = prop_oneof![
        Just(Unit::One),
        Just(Unit::Kibi),
        Just(Unit::Mebi),
        Just(Unit::Gibi),
        Just(Unit::Pages)
    ];
    let value = prop_oneof![0..100u64, any::<u64>()];
    (value, radix, unit).prop_map(|(value, zeros, unit)| {
        let digits = format!("{value:x}").len() as u8;
        let radix = zeros.map_or(Radix::Decimal, |n| Radix::Hexadecimal(digits.max(n)));
        Atom::Int { value, radix, unit }
    })
}

fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        integer(),
        variable().prop_map(|name| Atom::Name(name.value)),
        "E[A-Z]{2,6}".prop_map(Atom::Errno),
    ];
    let single = |atom: Atom| Expr {
        first: Product { first: at(atom), rest: Vec::new() },
        rest: Vec::new(),
    };
    leaf.prop_map(single).prop_recursive(3, 12, 3, |inner| {
        let atom = prop_oneof![
            inner.clone().prop_map(|e| Atom::Paren(Box::new(e))),
            integer(),
            variable().prop_map(|name| Atom::Name(name.value)),
        ]
        .boxed();
        let times = prop_oneof![Just(MulOp::Mul), Just(MulOp::Div), Just(MulOp::Rem)];
        // An operator on bits stands with itself alone.
        let bits = prop_oneof![Just(MulOp::And), Just(MulOp::Shl), Just(MulOp::Shr)];
        let masks = (atom.clone(), bits, prop::collection::vec(atom.clone(), 1..3)).prop_map(
            |(first, op, rest)| {
                let rest = rest.into_iter().map(|atom| (op, at(atom))).collect();
                Expr { first: Product { first: at(first), rest }, rest: Vec::new() }
            },
        );
        let product =
            (atom.clone(), prop::collection::vec((times, atom), 0..2)).prop_map(|(first, rest)| {
                Product {
                    first: at(first),
                    rest: rest.into_iter().map(|(op, atom)| (op, at(atom))).collect(),
                }
            });
        let product = product.boxed();
        let op = prop_oneof![Just(SumOp::Add), Just(SumOp::Sub)];
        let sums = (product.clone(), prop::collection::vec((op, product), 0..3))
            .prop_map(|(first, rest)| Expr { first, rest });
        prop_oneof![3 => sums, 1 => masks]
    })
}

fn cond() -> impl Strategy<Value = Cond> {
    let op = prop_oneof![
        Just(CmpOp::Eq),
        Just(CmpOp::Ne),
        Just(CmpOp::Lt),
        Just(CmpOp::Le),
        Just(CmpOp::Gt),
        Just(CmpOp::Ge)
    ];
    (expr(), op, expr()).prop_map(|(left, op, right)| Cond { left, op: at(op), right })
}

fn arg() -> impl Strategy<Value = Arg> {
    prop_oneof![
        expr().prop_map(Arg::Expr),
        prop::collection::vec(flag(), 1..3).prop_map(Arg::Flags),
        word("[a-zA-Z_][a-z0-9_]{0,6}").prop_map(Arg::Code),
        word("[a-zA-Z_][a-z0-9_]{0,6}").prop_map(Arg::Jit),
    ]
}

fn args() -> impl Strategy<Value = Vec<Arg>> {
    prop::collection::vec(arg(), 0..3)
}

fn arches() -> impl Strategy<Value = Vec<Name>> {
    prop::collection::vec(word("[a-z][a-z0-9_-]{0,6}"), 1..3)
}

fn context() -> impl Strategy<Value = Context> {
    prop_oneof![
        Just(Context::IrqsOff),
        Just(Context::StopMachine),
        Just(Context::Rcu),
        Just(Context::Idle),
        Just(Context::PollingIdle),
        word("[a-zA-Z_][a-z0-9_]{0,6}").prop_map(Context::Lock),
        word("[a-zA-Z_][a-z0-9_]{0,6}").prop_map(Context::Mm),
        (expr(), expr()).prop_map(|(addr, len)| Context::Patch { addr, len }),
    ]
}

fn targets() -> impl Strategy<Value = Targets> {
    prop_oneof![
        Just(Targets::All),
        Just(Targets::Others),
        prop::collection::vec(count(), 1..3).prop_map(Targets::Cpus),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    let simple = prop_oneof![
        (any::<bool>(), prop::option::of(variable()), variable(), args()).prop_map(
            |(propagate, assign, name, args)| StmtKind::Call {
                propagate,
                assign,
                call: Call { name, args }
            }
        ),
        (variable(), expr()).prop_map(|(name, value)| StmtKind::Publish { name, value }),
        variable().prop_map(StmtKind::Await),
        cond().prop_map(StmtKind::Assert),
        (word("[a-z_][a-z0-9_.]{0,6}"), args()).prop_map(|(op, args)| StmtKind::Op { op, args }),
        (targets(), variable())
            .prop_map(|(targets, handler)| StmtKind::Ipi { targets: at(targets), handler }),
    ];
    let stmt = (prop::option::weighted(0.2, variable()), simple)
        .prop_map(|(label, kind)| at(Stmt { label, kind }));
    let flat = prop::collection::vec(stmt, 0..3);
    flat.prop_recursive(3, 16, 3, |inner| {
        let nested = prop_oneof![
            (cond(), inner.clone(), prop::option::of(inner.clone()))
                .prop_map(|(cond, then, otherwise)| StmtKind::If { cond, then, otherwise }),
            (count(), prop::option::of(variable()), inner.clone())
                .prop_map(|(count, var, body)| StmtKind::Repeat { count, var, body }),
            (arches(), inner.clone()).prop_map(|(arches, body)| StmtKind::When { arches, body }),
            (context(), inner.clone())
                .prop_map(|(context, body)| StmtKind::With { context: at(context), body }),
        ];
        (inner, nested).prop_map(|(mut body, kind)| {
            body.push(at(Stmt { label: None, kind }));
            body
        })
    })
}

fn header() -> impl Strategy<Value = Header> {
    prop_oneof![
        string().prop_map(Header::About),
        prop::collection::vec(version(), 1..3).prop_map(Header::Kernel),
        arches().prop_map(Header::Arch),
        count().prop_map(Header::Cpus),
        (word("[A-Z_]{1,6}"), word("[a-z0-9./+-]{1,6}"))
            .prop_map(|(name, value)| Header::Config { name, value }),
        (word("[a-z0-9]{1}[a-z0-9_]{0,4}"), word("[a-z_]{1,6}"), word("[a-z0-9]{1,3}"))
            .prop_filter("begins with a letter", |(a, _, _)| !a.value.starts_with(char::is_numeric))
            .prop_map(|(arch, name, value)| Header::Feature { arch, name, value }),
        (variable(), prop::option::of(count()), prop::option::of(count()), word("E[A-Z]{2,6}"),)
            .prop_map(|(call, nth, allocation, errno)| Header::Fail {
                call,
                nth,
                allocation,
                errno,
            }),
        (word("[a-z][a-z-]{0,10}"), string())
            .prop_map(|(rule, reason)| Header::Allow { rule, reason }),
    ]
}

fn selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        "[a-z][a-z0-9_-]{0,6}"
            .prop_filter("keywords", |s| s != "kernel" && s != "reading")
            .prop_map(Selector::Arch),
        (version(), prop::option::of(version()))
            .prop_map(|(from, to)| Selector::Kernel { from, to }),
        prop::sample::select(Reading::ALL.to_vec()).prop_map(|(_, r)| Selector::Reading(r)),
    ]
}

fn expected() -> impl Strategy<Value = Expected> {
    let item = (
        word("[a-z]{3}[a-z-]{0,10}[a-z]")
            .prop_filter("keywords", |r| !["none", "open", "blocked"].contains(&&*r.value)),
        any::<bool>(),
        prop::option::of(word("[a-z][a-z0-9_.-]{0,6}")),
        prop::option::of(count()),
        prop::option::of(variable()),
    )
        .prop_map(|(rule, possible, missing, count, label)| {
            at(Item { rule, possible, missing, count, at: label })
        });
    prop_oneof![
        Just(Expected::None),
        Just(Expected::Open),
        Just(Expected::Blocked),
        prop::collection::vec(item, 1..3).prop_map(Expected::Items)
    ]
}

fn block() -> impl Strategy<Value = Block> {
    let kind = prop_oneof![Just(HandlerKind::Ipi), Just(HandlerKind::Trap)];
    prop_oneof![
        body().prop_map(Block::Setup),
        (count(), body()).prop_map(|(number, body)| Block::Cpu { number, body }),
        (kind, variable(), body()).prop_map(|(kind, name, body)| Block::Handler {
            kind: at(kind),
            name,
            body
        }),
        (prop::collection::vec(selector().prop_map(at), 0..3), expected()).prop_map(
            |(selectors, expected)| Block::Expect(Expect { selectors, expected: at(expected) })
        ),
    ]
}

fn file() -> impl Strategy<Value = File> {
    let headers = prop::collection::vec(header().prop_map(at), 0..4);
    let blocks = prop::collection::vec(block().prop_map(at), 0..4);
    (string(), headers, blocks).prop_map(|(name, headers, blocks)| File { name, headers, blocks })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn reading_what_was_printed_gives_the_same_tree(file in file()) {
        let text = file.to_string();
        match parse(&text) {
            Ok(read) => {
                prop_assert_eq!(&read, &file, "{}", text);
                prop_assert_eq!(read.to_string(), text);
            }
            Err(error) => prop_assert!(false, "{error}\n{text}"),
        }
    }

    #[test]
    fn noise_never_panics_and_errors_lie_in_the_text(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        in_the_text(&bytes)?;
    }

    #[test]
    fn words_in_any_order_never_panic(
        words in prop::collection::vec(prop::sample::select(&[
            "scenario", "\"s\"", "\n", "{", "}", "(", ")", "cpu", "0", "expect", ":", ",", "x2",
            "missing", "at", "if", "else", "==", "=", "f", "publish", "await", "#", "-", "*", "pages",
            "2K", "repeat", "as", "when", "op", "with", "lock", "ipi", "all", "kernel", "6.12", "..",
            "fail", "#1", "handler", "trap", "A|B", "|", "code(", "try", "\"", "\\", "é", "none",
        ][..]), 0..60),
    ) {
        let text = format!("scenario \"s\"\n{}", words.join(" "));
        in_the_text(text.as_bytes())?;
        in_the_text(words.concat().as_bytes())?;
    }

    #[test]
    fn damaged_files_never_panic(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..4),
    ) {
        let mut bytes = EVERYTHING.as_bytes().to_vec();
        for (index, byte, how) in cuts {
            // Cut to one byte and that removed: nothing is left to damage.
            if bytes.is_empty() { break; }
            let i = index.index(bytes.len());
            match how {
                0 => { bytes.remove(i); }
                1 => bytes.insert(i, byte),
                _ => bytes.truncate(i.max(1)),
            }
        }
        in_the_text(&bytes)?;
    }
}

/// Whatever is read prints and reads again as itself; an error's place is in the text.
fn in_the_text(bytes: &[u8]) -> Result<(), TestCaseError> {
    match parse_bytes(bytes) {
        Ok(file) => prop_assert_eq!(parse(&file.to_string()), Ok(file)),
        Err(error) => {
            prop_assert!(error.span.start <= error.span.end);
            prop_assert!(error.span.end <= bytes.len().max(1), "{:?}", error);
            prop_assert!(!error.message().is_empty() && !error.label().is_empty());
            if let Ok(text) = std::str::from_utf8(bytes) {
                prop_assert!(text.get(error.span.start..error.span.end).is_some(), "{:?}", error);
            }
        }
    }
    Ok(())
}
