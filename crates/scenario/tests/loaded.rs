//! Reading whole files: what they say of themselves, what is wrong with them, what differs.

use textbed_arch::Arch;
use textbed_scenario::diagnostic::Severity;
use textbed_scenario::expect::{End, Finding};
use textbed_scenario::syntax::ast::Reading;
use textbed_scenario::{Loaded, Outcome, Version, compare, load, load_bytes};

const RULES: [&str; 3] = ["ignored-error", "missing-trap-fill", "wx-mapping"];

const FILE: &str = r#"scenario "name"
about "what it is about"
kernel 5.18-rc3, 6.12
arch powerpc, x86_64
allow wx-mapping "wanted"
cpu 0 {
    outer: if 1 == 1 {
        inner: vmalloc(4096)
        vfree(0)
    }
    vfree(0)
}
expect: none
expect x86_64: missing-trap-fill missing isb at inner, ignored-error x2
expect x86_64 reading strict: blocked
"#;

fn loaded(text: &str) -> Loaded {
    load("f.tb", text.to_owned(), &RULES).expect("a good file").0
}

#[test]
fn what_a_file_says_of_itself() {
    let file = loaded(FILE);
    assert_eq!(
        (file.name(), file.about(), file.path()),
        ("name", Some("what it is about"), "f.tb")
    );
    assert_eq!(file.archs(), [Arch::X86_64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32]);
    assert_eq!(file.kernels(), [Version::candidate(5, 18, 3), Version::release(6, 12)]);
    assert_eq!(file.allows(), [("wx-mapping", "wanted")]);
    assert!(file.expects_anything());
    let bare = loaded("scenario \"s\"\ncpu 0 { }\n");
    assert_eq!(bare.archs(), [Arch::X86_64, Arch::Arm64, Arch::Ppc64le]);
    assert_eq!(bare.kernels(), [Version::release(6, 12)]);
    assert_eq!((bare.about(), bare.expects_anything()), (None, false));
}

#[test]
fn labels_belong_to_the_innermost_statement() {
    let file = loaded(FILE);
    let at = |text: &str, nth: usize| {
        let offset = FILE.match_indices(text).nth(nth).unwrap().0;
        file.label_at(offset as u64).map(str::to_owned)
    };
    assert_eq!(at("vmalloc", 0).as_deref(), Some("inner"));
    assert_eq!(at("vfree", 0).as_deref(), Some("outer"));
    assert_eq!(at("1 == 1", 0).as_deref(), Some("outer"));
    assert_eq!(at("vfree", 1), None);
    assert_eq!(file.label_at(0), None);
    assert_eq!(file.label_at(u64::MAX), None);
    assert_eq!(file.position(FILE.find("inner").unwrap()).to_string(), "8:9");
}

#[test]
fn what_is_wrong_is_said_at_its_place() {
    let text = "scenario \"s\"\ncpu 0 {\n    vmaloc(1)\n    await never\n}\nexpect: wx-maping\n";
    let errors = load("f.tb", text.to_owned(), &RULES).unwrap_err();
    let said: Vec<(&str, &str, Option<&str>, Severity)> = errors
        .iter()
        .map(|d| (d.message.as_str(), d.span.text(text), d.help.as_deref(), d.severity))
        .collect();
    assert_eq!(
        said,
        [
            (
                "there is no call `vmaloc`",
                "vmaloc",
                Some("did you mean `vmalloc`?"),
                Severity::Error
            ),
            (
                "nobody publishes `never`, so this CPU is blocked here",
                "never",
                None,
                Severity::Warning
            ),
            (
                "there is no rule `wx-maping`",
                "wx-maping",
                Some("did you mean `wx-mapping`?"),
                Severity::Error
            ),
        ]
    );
    let text = "scenario \"s\"\ncpu 0 { await never }\n";
    let (_, warnings) = load("f.tb", text.to_owned(), &RULES).unwrap();
    assert_eq!(warnings.len(), 1);
    let errors = load("f.tb", "scenaro".to_owned(), &RULES).unwrap_err();
    assert_eq!(errors[0].help.as_deref(), Some("did you mean `scenario`?"));
    let errors = load_bytes("f.tb", b"scenario \"\xff\"", &RULES).unwrap_err();
    assert_eq!(errors[0].message, "this is not UTF-8 text");
    assert!(load_bytes("f.tb", FILE.as_bytes(), &RULES).is_ok());
    let routine = "scenario \"s\"\ncpu 0 { memcpy(0, code(ret24)) }\n";
    let errors = load("f.tb", routine.to_owned(), &RULES).unwrap_err();
    assert!(errors[0].message.contains("guest routine `ret24`"), "{errors:?}");
}

fn finding(rule: &str, missing: &[&str], label: Option<&str>, count: u64) -> Finding {
    Finding {
        rule: rule.to_owned(),
        possible: false,
        missing: missing.iter().map(|m| (*m).to_owned()).collect(),
        label: label.map(str::to_owned),
        count,
    }
}

#[test]
fn differences_are_said_at_the_line_or_item() {
    let file = loaded(FILE);
    let said = |arch, reading, outcome: Outcome, findings: &[Finding]| -> Vec<String> {
        let kernel = Version::release(6, 12);
        compare(&file, arch, kernel, reading, outcome.end(), findings)
            .into_iter()
            .map(|d| format!("⟨{}⟩ {}", d.span.text(FILE), d.message))
            .collect()
    };
    let fill = finding("missing-trap-fill", &["isb"], Some("inner"), 1);
    let ignored = finding("ignored-error", &[], None, 1);
    let mapped = Reading::Mapped;
    let all = [fill.clone(), ignored.clone(), ignored.clone()];
    assert_eq!(said(Arch::X86_64, mapped, Outcome::Ended, &all), [""; 0]);
    assert_eq!(said(Arch::Ppc64, mapped, Outcome::Ended, &[]), [""; 0]);
    assert_eq!(
        said(Arch::Ppc64, mapped, Outcome::Ended, std::slice::from_ref(&fill)),
        ["⟨expect: none⟩ found and not expected: missing-trap-fill missing isb at inner"]
    );
    assert_eq!(
        said(Arch::X86_64, mapped, Outcome::Blocked, &[ignored]),
        [
            "⟨missing-trap-fill missing isb at inner⟩ expected and not found: missing-trap-fill missing \
         isb at inner",
            "⟨ignored-error x2⟩ expected 2 and found 1: ignored-error x2",
            "⟨expect x86_64: missing-trap-fill missing isb at inner, ignored-error x2⟩ a program is \
         blocked, which is not expected",
        ]
    );
    let strict = Reading::by_name("strict").unwrap();
    assert_eq!(said(Arch::X86_64, strict, Outcome::Blocked, &[]), [""; 0]);
    assert_eq!(
        said(Arch::X86_64, strict, Outcome::Ended, &[]),
        ["⟨expect x86_64 reading strict: blocked⟩ expected to be blocked, but every program ended"]
    );
    assert_eq!(said(Arch::Ppc64, mapped, Outcome::Limit("x".into()), &[]).len(), 1);
    assert_eq!(Outcome::NotModelled("x".into()).end(), End::Unfinished);
}
