//! What is built reads as what a file says, word for word and tree for tree.

use super::*;
use crate::syntax::parse;

fn var(name: &str) -> Expr {
    name.into()
}

#[test]
fn every_construct_is_built_as_it_is_read() {
    let text = r#"scenario "both \"ways\""
about "one\ntwo"
kernel 5.18-rc3
kernel 6.12
arch x86_64
arch powerpc
cpus 3
config STRICT_MODULE_RWX = y
feature arm64.dic = 1
fail vmalloc #2 with ENOMEM
fail vmalloc with EINVAL
fail vmalloc #4 allocation 3 with ENOMEM
allow wx-mapping "why"
setup {
    area = vmalloc(2M, VM_FLUSH_RESET_PERMS | VM_ALLOW_HUGE_VMAP)
}
cpu 0 {
    here: try r = set_memory_ro(area, 512 pages)
    try set_memory_x(area + 2 * (4K - 64), 1G)
    fill(area + 1 + 2 - (3 + 4), code(ret42), jit(prog))
    if r != -EINVAL {
        op isb
    } else {
        repeat 3 as i {
            f(i)
        }
    }
    if r < 3 {
    }
    repeat 2 {
        g()
    }
    when x86_64, powerpc {
        op mov_cr3(area)
    }
    with irqs_off {
        with lock l {
            with mm m {
                with rcu {
                    with stop_machine {
                        f(1)
                    }
                }
            }
        }
    }
    with patch(area + 64, 8) {
        f(1)
    }
    ipi all sync
    ipi others sync
    ipi 1, 2 sync
    publish entry = area + 64
}
cpu 1 {
    await entry
    r = call(entry)
    assert r == 42
}
handler ipi sync {
    op cpuid
}
handler trap bug {
    op cpuid
}
expect: none
expect x86_64 kernel 6.12: missing-trap-fill? missing isb x2 at here
"#;
    let built = Scenario::new("both \"ways\"")
        .about("one\ntwo")
        .kernel("5.18-rc3")
        .kernel("6.12")
        .arch("x86_64")
        .arch("powerpc")
        .cpus(3)
        .config("STRICT_MODULE_RWX", "y")
        .feature("arm64", "dic", "1")
        .fail("vmalloc", Some(2), "ENOMEM")
        .fail("vmalloc", None, "EINVAL")
        .fail_allocation("vmalloc", Some(4), 3)
        .allow("wx-mapping", "why")
        .setup(|p| {
            let flags = flags(&["VM_FLUSH_RESET_PERMS", "VM_ALLOW_HUGE_VMAP"]);
            p.assign("area", "vmalloc", [mib(2).into(), flags]);
        })
        .cpu(0, |p| {
            p.label("here").try_assign("r", "set_memory_ro", ["area".into(), pages(512).into()]);
            let addr = var("area") + Expr::from(2) * (kib(4) - 64);
            p.try_call("set_memory_x", [addr.into(), gib(1).into()]);
            let nested = var("area") + 1 + 2 - (Expr::from(3) + 4);
            p.call("fill", [nested.into(), code("ret42"), jit("prog")]);
            p.either(
                ("r", CmpOp::Ne, errno("EINVAL")),
                |p| p.op("isb", []),
                |p| p.repeat(3, Some("i"), |p| p.call("f", ["i".into()])),
            );
            p.when_true(("r", CmpOp::Lt, 3), |_| {});
            p.repeat(2, None, |p| p.call("g", []));
            p.on(&["x86_64", "powerpc"], |p| p.op("mov_cr3", ["area".into()]));
            p.with_irqs_off(|p| {
                p.with_lock("l", |p| {
                    p.with_mm("m", |p| {
                        p.with_rcu(|p| p.with_stop_machine(|p| p.call("f", [1.into()])));
                    });
                });
            });
            p.with_patch(var("area") + 64, 8, |p| p.call("f", [1.into()]));
            p.ipi_all("sync");
            p.ipi_others("sync");
            p.ipi(&[1, 2], "sync");
            p.publish("entry", var("area") + 64);
        })
        .cpu(1, |p| {
            p.wait_for("entry");
            p.assign("r", "call", ["entry".into()]);
            p.assert("r", CmpOp::Eq, 42);
        })
        .ipi_handler("sync", |p| p.op("cpuid", []))
        .trap_handler("bug", |p| p.op("cpuid", []))
        .expect("", "none")
        .expect("x86_64 kernel 6.12", "missing-trap-fill? missing isb x2 at here");
    let (source, tree) = built.file().unwrap();
    // Empty bodies are printed on one line.
    let text = text.replace("if r < 3 {\n    }", "if r < 3 { }");
    assert_eq!(source, text);
    assert_eq!(tree, parse(&text).unwrap());
    let Block::Cpu { body, .. } = &tree.blocks[1].value else { panic!() };
    let place = body[0].span.text(&source);
    assert_eq!(place, "here: try r = set_memory_ro(area, 512 pages)", "places are the text's");
}

#[test]
fn what_is_built_means_what_rust_means() {
    let shown = |e: Expr| e.0.to_string();
    let (a, b, c) = (var("a"), var("b"), var("c"));
    assert_eq!(shown(a.clone() - (b.clone() - c.clone())), "a - (b - c)");
    assert_eq!(shown(a.clone() - b.clone() - c.clone()), "a - b - c");
    assert_eq!(shown((a.clone() + b.clone()) * c.clone()), "(a + b) * c");
    assert_eq!(shown(a.clone() * (b.clone() * c.clone())), "a * (b * c)");
    assert_eq!(shown(a + b * c), "a + b * c");
}

#[test]
fn names_that_are_none_are_errors() {
    let error = |build: fn(&mut Program)| Scenario::new("s").cpu(0, build).file().unwrap_err();
    assert!(matches!(error(|p| p.call("two words", [])), BuildError::Syntax { .. }));
    assert!(matches!(error(|p| p.call("f()\n    g", [])), BuildError::Different { .. }));
    assert!(matches!(error(|p| p.call("", [])), BuildError::Syntax { .. }));
    assert!(matches!(error(|p| p.wait_for("if")), BuildError::Syntax { .. }));
    let expect = Scenario::new("s").expect("", "none\ncpu 0 { }").file();
    assert!(matches!(expect, Err(BuildError::Different { .. })));
    let said = error(|p| p.call("two words", [])).to_string();
    assert!(said.contains("two words()"), "{said}");
}
