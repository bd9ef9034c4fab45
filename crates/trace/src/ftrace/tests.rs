use super::*;
use proptest::prelude::*;

fn event(line: &str) -> Event<'_> {
    match parse(line.as_bytes()) {
        Parsed::Event(e) => e,
        other => panic!("no event: {other:?} in {line:?}"),
    }
}

#[test]
fn default_format() {
    let e = event(
        "     kworker/0:0-9       [000] d.h1.    15.880373: remove_vm_area: \
         (remove_vm_area+0x4/0x70) addr=0xffffc900012a4000",
    );
    assert_eq!((e.task, e.pid, e.cpu), (&b"kworker/0:0"[..], 9, 0));
    assert_eq!(e.time, Time::Nanos(15_880_373_000));
    assert_eq!(e.name, b"remove_vm_area");
    assert_eq!(e.location(), Some(Location::At(b"remove_vm_area+0x4/0x70")));
    assert_eq!(e.number(b"addr"), Some(0xffff_c900_012a_4000));
    let flags = e.flags.unwrap();
    assert!(flags.irqs_off && !flags.need_resched);
    assert_eq!(
        (flags.context, flags.preempt_depth, flags.migrate_disable),
        (Context::Irq, 1, Some(0))
    );
}

#[test]
fn task_names_of_every_kind() {
    for task in ["<...>", "<idle>", "irq/68-dwc3-523", "a [001] b 1.2: x", "x (  77)", "-", "-1"] {
        let line = format!("{task:>16}-77      [003] d....  1234.000007: vfree: (vfree+0x0/0x8)");
        let e = event(&line);
        assert_eq!((e.task, e.pid, e.cpu), (task.as_bytes(), 77, 3), "{line}");
        assert_eq!(e.time, Time::Nanos(1_234_000_007_000));
    }
    // Not in its column: the first place that reads well.
    assert_eq!(event("kworker/10:0-77 [000] 9.5: e: x").task, b"kworker/10:0");
}

#[test]
fn four_flags_no_flags_and_tgid() {
    let four = event("            bash-1977  [000] dN.1 17284.993652: sys_close: x");
    assert_eq!(four.flags.unwrap().migrate_disable, None);
    assert!(four.flags.unwrap().need_resched);
    let none = event("            bash-1977  [000] 17284.993652: sys_close: x");
    assert_eq!((none.flags, none.tgid), (None, None));
    let tgid = event("            bash-1977    (   1977) [000] .... 17284.993652: sys_close: x");
    assert_eq!((tgid.task, tgid.pid, tgid.tgid), (&b"bash"[..], 1977, Some(1977)));
    let dash = event("           <...>-1977    (-------) [000] .... 17284.993652: sys_close: x");
    assert_eq!((dash.task, dash.pid, dash.tgid), (&b"<...>"[..], 1977, None));
    let ns = event("            bash-1977  [000] 17284.993652123: sys_close: x");
    assert_eq!(ns.time, Time::Nanos(17_284_993_652_123));
    let ticks = event("            bash-1977  [000] .....   3318934: sys_close: x");
    assert_eq!(ticks.time, Time::Ticks(3_318_934));
}

#[test]
fn latency_format_and_ftrace_dump() {
    // Seven flag characters: the columns of PREEMPT_RT.
    let rt = event("  <idle>-0         1dN.h1..  123us+: ipi_entry: (Function call interrupts)");
    assert_eq!((rt.cpu, rt.flags.unwrap().context), (1, Context::Irq));
    let e = event("  <idle>-0         1dNh1.  123us+: ipi_entry: (Function call interrupts)");
    assert_eq!((e.task, e.pid, e.cpu), (&b"<idle>"[..], 0, 1));
    assert_eq!((e.time, e.name), (Time::Nanos(123_000), &b"ipi_entry"[..]));
    let dump =
        "[   15.123456]     init-1         0..... 15132627us : vfree: (vfree+0x0/0x8) addr=0x0";
    assert_eq!((event(dump).pid, event(dump).cpu), (1, 0));
    assert_eq!(event(dump).number(b"addr"), Some(0));
}

#[test]
fn returns_and_arguments() {
    let e = event(
        "        modprobe-873     [000] .....    15.926667: set_memory_ro__ret: \
         (module_enable_rodata_ro+0x53/0xe0 [dm_mod] <- set_memory_ro) ret=0xfffffff4 name=\"a b\" \
         op={0xe8,0x2a} f=g+0x0/0x8 [xfs] n=-22",
    );
    assert_eq!(
        e.location(),
        Some(Location::Return {
            to: b"module_enable_rodata_ro+0x53/0xe0 [dm_mod]",
            from: b"set_memory_ro"
        })
    );
    assert_eq!(e.number(b"ret"), Some(0xffff_fff4));
    assert_eq!(e.arg(b"name"), Some(&b"a b"[..]));
    assert_eq!(e.arg(b"op"), Some(&b"{0xe8,0x2a}"[..]));
    assert_eq!(e.arg(b"f"), Some(&b"g+0x0/0x8"[..]));
    assert_eq!(e.number(b"n"), Some((-22i64).cast_unsigned()));
    let colon = event(
        "            init-1       [001] .....    15.910439: alloc_vmap_area: va_start: \
         18446683600589471744 size=20480 align=16384 vstart=0xffffc90000000000 failed=0",
    );
    assert_eq!(colon.number(b"va_start"), Some(18_446_683_600_589_471_744));
    assert_eq!(colon.number(b"size"), Some(20480));
    let tlb = event(
        "            init-1       [001] d..1.    15.881225: tlb_flush: pages:-1 \
         reason:flush on task switch (0)",
    );
    assert_eq!(tlb.number(b"pages"), Some(u64::MAX));
    assert_eq!(tlb.arg(b"reason"), Some(&b"flush"[..]));
}

#[test]
fn numbers_that_do_not_fit_are_none() {
    for bad in ["", "0x", "0x1ffffffffffffffff", "18446744073709551616", "12a", "0xg", "-", "--1"] {
        assert_eq!(number(bad.as_bytes()), None, "{bad}");
    }
    assert_eq!(number(b"0xffffffffffffffff"), Some(u64::MAX));
    assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
    assert_eq!(number(b"-1"), Some(u64::MAX));
    assert_eq!(number(b"-9223372036854775808"), Some(1 << 63));
    assert_eq!(number(b"-9223372036854775809"), None);
}

#[test]
fn lines_that_are_no_events() {
    assert_eq!(parse(b"# tracer: nop"), Parsed::Comment(Comment::Tracer(b"nop")));
    assert_eq!(
        parse(b"# entries-in-buffer/entries-written: 365641/365650   #P:2"),
        Parsed::Comment(Comment::Entries { in_buffer: 365_641, written: 365_650, cpus: Some(2) })
    );
    assert_eq!(
        parse(b"##### CPU 3 buffer started ####"),
        Parsed::Comment(Comment::BufferStarted(3))
    );
    assert_eq!(parse(b"#   TASK-PID [000] 1.0: x: y"), Parsed::Comment(Comment::Other));
    assert_eq!(parse(b"CPU:1 [LOST 123 EVENTS]"), Parsed::Lost(Some(1), Some(123)));
    assert_eq!(parse(b"CPU:12 [LOST EVENTS]"), Parsed::Lost(Some(12), None));
    assert_eq!(parse(b"CPU:0 [9 EVENTS DROPPED]"), Parsed::Lost(Some(0), Some(9)));
    assert_eq!(parse(b"CPU:0 [EVENTS DROPPED]"), Parsed::Lost(Some(0), None));
    assert_eq!(parse(b"CPU:0 [LOST x EVENTS]"), Parsed::Unknown);
    assert_eq!(parse(b"[   15.123456] usb 1-1: new device"), Parsed::Printk);
    assert_eq!(parse(b"<6>[   15.123456][    T1] usb 1-1: new device"), Parsed::Printk);
    assert_eq!(parse(b" => do_idle"), Parsed::Stack);
    assert_eq!((parse(b""), parse(b"  \t")), (Parsed::Blank, Parsed::Blank));
    assert_eq!(parse(b"hello"), Parsed::Unknown);
    assert_eq!(parse(b"   init-1  [001] ..... 15.9"), Parsed::Unknown);
}

#[test]
fn function_tracer_lines_have_no_name() {
    let e = event("            bash-1977  [000] .... 17284.993652: vfs_read <-ksys_read");
    assert_eq!((e.name, e.body), (&b""[..], &b"vfs_read <-ksys_read"[..]));
}

/// The kernel's own print formats, as `trace_print_context` has them.
fn print(e: &Event<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    out.resize(16usize.saturating_sub(e.task.len()), b' ');
    out.extend_from_slice(e.task);
    out.extend_from_slice(format!("-{:<7} ", e.pid).as_bytes());
    if let Some(tgid) = e.tgid {
        out.extend_from_slice(format!("({tgid:7}) ").as_bytes());
    }
    out.extend_from_slice(format!("[{:03}] ", e.cpu).as_bytes());
    if let Some(f) = e.flags {
        let hex = |n: u8| if n == 0 { '.' } else { char::from_digit(u32::from(n), 16).unwrap() };
        out.push(match (f.irqs_off, f.bh_off) {
            (true, true) => b'D',
            (true, false) => b'd',
            (false, true) => b'b',
            (false, false) => b'.',
        });
        out.push(if f.need_resched { b'N' } else { b'.' });
        out.push(match f.context {
            Context::Task => b'.',
            Context::Softirq => b's',
            Context::Irq => b'h',
            Context::IrqInSoftirq => b'H',
            Context::Nmi => b'z',
            Context::NmiInIrq => b'Z',
        });
        out.extend(hex(f.preempt_depth).to_string().bytes());
        out.extend(f.migrate_disable.map(|n| hex(n) as u8));
        out.push(b' ');
    }
    out.extend_from_slice(
        match e.time {
            Time::Nanos(ns) => format!("{:5}.{:06}: ", ns / 1_000_000_000, ns / 1000 % 1_000_000),
            Time::Ticks(n) => format!("{n:12}: "),
        }
        .as_bytes(),
    );
    out.extend_from_slice(e.name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(e.body);
    out
}

fn context() -> impl Strategy<Value = Context> {
    prop_oneof![
        Just(Context::Task),
        Just(Context::Softirq),
        Just(Context::Irq),
        Just(Context::IrqInSoftirq),
        Just(Context::Nmi),
        Just(Context::NmiInIrq)
    ]
}

prop_compose! {
    fn any_flags()(
        irqs_off: bool, bh_off: bool, need_resched: bool, context in context(),
        preempt_depth in 0u8..16, migrate_disable in proptest::option::of(0u8..16),
    ) -> Flags {
        Flags { irqs_off, bh_off, need_resched, context, preempt_depth, migrate_disable }
    }
}

/// A task name: 15 bytes at most, no NUL and no newline, not empty, without leading white space
/// (which right alignment hides) and not beginning with `#` in the first column (a comment).
fn task() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => any::<u8>(),
        4 => prop::sample::select(b"-[]() .:0123456789d".to_vec()),
    ]
    .prop_filter("not in a line", |c| *c != 0 && *c != b'\n');
    prop::collection::vec(byte, 1..=15)
        .prop_filter("leading space", |t| !t[0].is_ascii_whitespace())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn never_panics(line in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Parsed::Event(e) = parse(&line) {
            let _ = (e.location(), e.args().count());
        }
    }

    #[test]
    fn never_panics_near_the_grammar(line in "[-a-z0-9 .:\\[\\]()#<>=+{}\"x]{0,120}") {
        if let Parsed::Event(e) = parse(line.as_bytes()) {
            let _ = (e.location(), e.args().count());
        }
    }

    #[test]
    fn a_printed_event_parses_back(
        task in task(), pid in 0i32..=4_194_304,
        tgid in proptest::option::of(0i32..=4_194_304), cpu in 0u32..8192,
        flags in proptest::option::of(any_flags()),
        micros in 0u64..10_000_000_000_000, ticks: bool,
        name in "[a-zA-Z_][a-zA-Z0-9_.]{0,30}", body in "[ -~]{0,80}",
    ) {
        let time = if ticks { Time::Ticks(micros) } else { Time::Nanos(micros * 1000) };
        let e = Event {
            task: &task, pid, tgid, cpu, flags, time,
            ..Event::new(name.as_bytes(), body.as_bytes())
        };
        let line = print(&e);
        prop_assert_eq!(parse(&line), Parsed::Event(e), "{}", String::from_utf8_lossy(&line));
    }

    #[test]
    fn arguments_parse_back(values in prop::collection::vec(any::<u64>(), 0..6)) {
        use std::fmt::Write as _;
        let mut body = String::from("(f+0x4/0x10)");
        for (i, v) in values.iter().enumerate() {
            match i % 3 {
                0 => write!(body, " a{i}=0x{v:x}").unwrap(),
                1 => write!(body, " a{i}={v}").unwrap(),
                _ => write!(body, " a{i}={}", v.cast_signed()).unwrap(),
            }
        }
        let line = format!("            init-1       [001] ..... 1.000000: f: {body}");
        let Parsed::Event(e) = parse(line.as_bytes()) else { panic!("{line}") };
        for (i, v) in values.iter().enumerate() {
            prop_assert_eq!(e.number(format!("a{i}").as_bytes()), Some(*v));
        }
    }
}

proptest! {
    #[test]
    fn arguments_found_once_are_those_of_the_event(
        texts in prop::collection::vec(
            prop::sample::select(vec![
                " a=0x1", " a=2", " b=0xffff888000000000", " b=", " c=\"x a=3\"", " c={1,2}", " =7",
                " a: 4", " b:5", "  d=-6", " c", "a=8", " d=\"", " \tb=9", " a=1=2", " bb=3", " c=7",
            ]),
            0..12,
        ),
        wanted in prop::sample::select(vec![&["a", "b", "c"][..], &["b", "a"], &["d", "c"], &[]]),
    ) {
        let line = format!("  sh-1 [001] ..... 1.000000: f: (f+0x4/0x10){}", texts.concat());
        let Parsed::Event(e) = parse(line.as_bytes()) else { panic!("{line}") };
        let fields = Fields::of(&e, wanted);
        for key in ["a", "b", "c", "d", "bb", "", "e"] {
            let key = key.as_bytes();
            prop_assert_eq!(fields.arg(key), e.arg(key), "{:?} in {}", key, line);
        }
    }
}

#[test]
fn times_of_any_precision() {
    let at = |time: &str| match parse(format!("  sh-1 [001] ..... {time} f: x").as_bytes()) {
        Parsed::Event(e) => Some(e.time),
        _ => None,
    };
    assert_eq!(at("7.250000:"), Some(Time::Nanos(7_250_000_000)));
    assert_eq!(at("7.000001:"), Some(Time::Nanos(7_000_001_000)));
    assert_eq!(at("7.25:"), Some(Time::Nanos(7_250_000_000)));
    assert_eq!(at("7.250000001:"), Some(Time::Nanos(7_250_000_001)));
    assert_eq!(at("7:"), Some(Time::Ticks(7)));
    for none in
        ["7.25000:x:", "7.250000:x:", "7.25x000:", "7.2500000000:", "99999999999999.250000:"]
    {
        assert_eq!(at(none), None, "{none}");
    }
}

#[test]
fn trace_cmds_latency_format_has_seconds() {
    let line = b"tc:       sh-107     1.....    68.000936: vfree: (ffffffff812f0730) addr=0x0";
    let Parsed::Event(e) = parse(line) else { panic!() };
    assert_eq!((e.pid, e.cpu, e.time), (107, 1, Time::Nanos(68_000_936_000)));
    assert_eq!((e.name, e.flags.map(|f| f.context)), (&b"vfree"[..], Some(Context::Task)));
}
