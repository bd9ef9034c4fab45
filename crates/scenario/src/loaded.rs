//! A scenario that was read and checked, ready to be run.

use textbed_arch::Arch;
use textbed_kernel::{CALLS, NOT_MODELLED};

use crate::analyse::{self, Known};
use crate::builder::{BuildError, Scenario};
use crate::diagnostic::{Diagnostic, Severity};
use crate::expect::{self, End, Finding, Verdict};
use crate::ops;
use crate::run::BUILT_INS;
use crate::span::{LineIndex, Position, Span};
use crate::syntax::ast::{Body, Expected, File, Header, Reading};
use crate::syntax::{self};
use textbed_kernel::Version;

/// The kernel that a scenario without a `kernel` line runs on.
pub const USUAL_KERNEL: Version = Version::release(6, 12);

/// A scenario that was read and has no error, as far as can be said without running it.
#[derive(Clone, Debug)]
pub struct Loaded {
    path: String,
    text: String,
    file: File,
    lines: LineIndex,
}

/// In which way a run differs from what its scenario expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// Expected, and not found or not so often.
    NotFound,
    /// Found, and not expected.
    NotExpected,
    /// The run ended otherwise.
    Ending,
    /// Two lines apply that are equally specific.
    Ambiguous,
}

/// What a scenario expects of a run: the line that applies to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The line's place.
    pub span: Span,
    /// Its items, as the line has them; empty if nothing is to be found.
    pub items: Vec<String>,
    /// How the run is to end.
    pub end: End,
    /// Assertions may hold or fail, though nothing is found.
    pub asserts_open: bool,
}

/// A difference between a run and what the scenario expects of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In which way.
    pub kind: DifferenceKind,
    /// What differs, in a sentence.
    pub message: String,
    /// The line or item of the file that says otherwise.
    pub span: Span,
}

/// Reads and checks a scenario. `path` is what events and messages call it; `rules` are the names
/// of the checker's rules. Gives the warnings with it.
///
/// # Errors
/// All that is wrong with it, in the order of the places; a text that can't be read has one error.
pub fn load(
    path: &str,
    text: String,
    rules: &[&str],
) -> Result<(Loaded, Vec<Diagnostic>), Vec<Diagnostic>> {
    let file = syntax::parse(&text).map_err(|error| vec![error.diagnostic()])?;
    let calls: Vec<&str> = CALLS
        .iter()
        .map(|call| call.name)
        .chain(NOT_MODELLED.iter().map(|call| call.name))
        .chain(BUILT_INS.iter().map(|call| call.name))
        .collect();
    let routines: Vec<&str> = Arch::ALL.into_iter().flat_map(textbed_firmware::names).collect();
    let known = Known { rules: Some(rules), calls: Some(&calls), routines: Some(&routines) };
    let problems = analyse::analyse(&file, &known);
    let diagnostics: Vec<Diagnostic> = problems.iter().map(|p| p.diagnostic()).collect();
    if diagnostics.iter().any(|d| d.severity == Severity::Error) {
        return Err(diagnostics);
    }
    let lines = LineIndex::new(&text);
    Ok((Loaded { path: path.to_owned(), text, file, lines }, diagnostics))
}

/// Reads bytes as a scenario; as [`load`], for files that may not be text.
///
/// # Errors
/// As [`load`].
pub fn load_bytes(
    path: &str,
    bytes: &[u8],
    rules: &[&str],
) -> Result<(Loaded, Vec<Diagnostic>), Vec<Diagnostic>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => load(path, text.to_owned(), rules),
        Err(_) => {
            Err(syntax::parse_bytes(bytes).err().map(|e| e.diagnostic()).into_iter().collect())
        }
    }
}

/// Why a built scenario can't be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuiltError {
    /// It can't be written as a file.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Its text, and what is wrong with it.
    #[error("{}", first(.1))]
    Wrong(String, Vec<Diagnostic>),
}

fn first(diagnostics: &[Diagnostic]) -> &str {
    diagnostics.first().map_or("wrong", |d| d.message.as_str())
}

/// Checks a scenario that was built in Rust. Its places are those of its text.
///
/// # Errors
/// It can't be written, or something is wrong with it.
pub fn load_built(
    path: &str,
    scenario: &Scenario,
    rules: &[&str],
) -> Result<(Loaded, Vec<Diagnostic>), BuiltError> {
    let (text, _) = scenario.file()?;
    load(path, text.clone(), rules).map_err(|diagnostics| BuiltError::Wrong(text, diagnostics))
}

impl Loaded {
    /// What events and messages call the file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The syntax tree.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The scenario's name.
    pub fn name(&self) -> &str {
        &self.file.name.value
    }

    /// What the `about` line says.
    pub fn about(&self) -> Option<&str> {
        self.headers().find_map(|header| match header {
            Header::About(text) => Some(text.value.as_str()),
            _ => None,
        })
    }

    /// The architectures it is for: those of its `arch` lines, or the three that are run by
    /// default.
    pub fn archs(&self) -> Vec<Arch> {
        analyse::architectures(&self.file)
    }

    /// The kernels it is told on, in the order of the file; [`USUAL_KERNEL`] if it names none.
    pub fn kernels(&self) -> Vec<Version> {
        let texts = self.headers().filter_map(|header| match header {
            Header::Kernel(versions) => Some(versions),
            _ => None,
        });
        let named: Vec<Version> =
            texts.flatten().filter_map(|text| Version::parse(&text.value).ok()).collect();
        if named.is_empty() { vec![USUAL_KERNEL] } else { named }
    }

    /// The rules whose findings it allows, with the reasons.
    pub fn allows(&self) -> Vec<(&str, &str)> {
        let allows = self.headers().filter_map(|header| match header {
            Header::Allow { rule, reason } => Some((rule.value.as_str(), reason.value.as_str())),
            _ => None,
        });
        allows.collect()
    }

    /// Whether it has any `expect` line.
    pub fn expects_anything(&self) -> bool {
        use crate::syntax::ast::Block;
        self.file.blocks.iter().any(|block| matches!(block.value, Block::Expect(_)))
    }

    /// What it expects of such a run. `None` if no line applies, or none alone.
    pub fn expectation(
        &self,
        arch: Arch,
        kernel: Version,
        reading: Reading,
    ) -> Option<Expectation> {
        let lines = expect::applying(&self.file, arch, &kernel, reading);
        let [(span, line)] = lines.as_slice() else { return None };
        let (items, end) = match &line.expected.value {
            Expected::None | Expected::Open => (Vec::new(), End::Ended),
            Expected::Blocked => (Vec::new(), End::Blocked),
            Expected::Items(items) => (items.iter().map(ToString::to_string).collect(), End::Ended),
        };
        let asserts_open = line.expected.value == Expected::Open;
        Some(Expectation { span: *span, items, end, asserts_open })
    }

    /// The readings under which its expectations have to be tried: the default one, and all if a
    /// line names any.
    pub fn readings(&self) -> Vec<Reading> {
        use crate::syntax::ast::{Block, Selector};
        let named = self.file.blocks.iter().any(|block| match &block.value {
            Block::Expect(expect) => {
                expect.selectors.iter().any(|s| matches!(s.value, Selector::Reading(_)))
            }
            _ => false,
        });
        if named {
            Reading::ALL.iter().map(|(_, reading)| *reading).collect()
        } else {
            vec![Reading::Mapped]
        }
    }

    /// The label of the innermost labelled statement at a byte offset.
    pub fn label_at(&self, offset: u64) -> Option<&str> {
        let offset = usize::try_from(offset).ok()?;
        let mut found = None;
        for body in analyse::bodies(&self.file) {
            innermost_label(body, offset, &mut found);
        }
        found
    }

    /// Line and column of a byte offset.
    pub fn position(&self, offset: usize) -> Position {
        self.lines.position(&self.text, offset)
    }

    pub(crate) fn lines(&self) -> &LineIndex {
        &self.lines
    }

    fn headers(&self) -> impl Iterator<Item = &Header> {
        self.file.headers.iter().map(|header| &header.value)
    }
}

fn innermost_label<'a>(body: &'a Body, offset: usize, found: &mut Option<&'a str>) {
    for stmt in body.iter().filter(|s| (s.span.start..s.span.end).contains(&offset)) {
        if let Some(label) = &stmt.value.label {
            *found = Some(&label.value);
        }
        for inner in stmt.value.kind.bodies() {
            innermost_label(inner, offset, found);
        }
    }
}

/// What differs between a run and the `expect` line that applies to it, each with its place. Empty
/// if nothing differs, or if no line applies.
pub fn compare(
    loaded: &Loaded,
    arch: Arch,
    kernel: Version,
    reading: Reading,
    end: End,
    findings: &[Finding],
) -> Vec<Difference> {
    let run = expect::Run { arch, kernel: &kernel, reading, end, findings };
    match expect::check(&loaded.file, &run) {
        Verdict::NothingExpected => Vec::new(),
        Verdict::Ambiguous(lines) => lines
            .into_iter()
            .map(|span| Difference {
                kind: DifferenceKind::Ambiguous,
                message: "this line applies, and another that is as specific".to_owned(),
                span,
            })
            .collect(),
        Verdict::Compared { line, difference } => described(line, &difference),
    }
}

fn described(line: Span, difference: &expect::Difference) -> Vec<Difference> {
    let mut all = Vec::new();
    for missing in &difference.missing {
        let item = &missing.item;
        let message = match (missing.expected, missing.found) {
            (1, _) => format!("expected and not found: {item}"),
            (expected, found) => format!("expected {expected} and found {found}: {item}"),
        };
        all.push(Difference { kind: DifferenceKind::NotFound, message, span: item.span });
    }
    for unexpected in &difference.unexpected {
        let message = format!("found and not expected: {}", shown(&unexpected.finding));
        all.push(Difference { kind: DifferenceKind::NotExpected, message, span: line });
    }
    if let Some((expected, found)) = difference.end {
        let message = match (expected, found) {
            (End::Blocked, End::Ended) => "expected to be blocked, but every program ended",
            (_, End::Blocked) => "a program is blocked, which is not expected",
            _ => "the run was cut short, so what was found is not the whole",
        };
        let message = message.to_owned();
        all.push(Difference { kind: DifferenceKind::Ending, message, span: line });
    }
    all
}

/// A finding as an item of an `expect` line would say it: put there, it matches.
pub fn shown(finding: &Finding) -> String {
    let mut text = finding.rule.clone();
    if finding.possible {
        text.push('?');
    }
    if let Some(missing) = finding.missing.first() {
        text.push_str(&format!(" missing {}", ops::spelling(expect::operation(missing))));
    }
    if finding.count != 1 {
        text.push_str(&format!(" x{}", finding.count));
    }
    if let Some(label) = &finding.label {
        text.push_str(&format!(" at {label}"));
    }
    text
}
