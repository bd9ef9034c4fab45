//! The syntax of scenario files: text to tree ([`parse`]) and tree to text (`Display` of
//! [`ast::File`]).
//!
//! ```text
//! file   = 'scenario' STR NL { header NL } { block }      # comment; statements end at newline
//! header = 'about' STR | 'kernel' VER{','VER} | 'arch' ARCH{','ARCH} | 'cpus' INT
//!        | 'config' NAME '=' WORD | 'feature' ARCH'.'NAME '=' WORD
//!        | 'fail' CALL ['#'INT] 'with' ERRNO | 'allow' RULE STR
//! block  = 'setup' body | 'cpu' INT body | 'handler' ('ipi'|'trap') NAME body
//!        | 'expect' [sel] ':' ('none' | 'open' | 'blocked' | item{','[NL]item})
//! sel    = { ARCH | 'kernel' VER['..'VER] | 'reading' R }+
//! item   = RULE ['?'] ['missing' OP] ['x'INT] ['at' LABEL]
//! body   = '{' { stmt } '}'
//! stmt   = [LABEL':'] ( [NAME'='] call | 'try' [NAME'='] call | 'publish' NAME'='expr
//!        | 'await' NAME | 'assert' cond | 'if' cond body ['else' body]
//!        | 'repeat' INT ['as' NAME] body | 'when' ARCH{','ARCH} body | 'op' OPNAME [args]
//!        | 'with' context body | 'ipi' CPUS NAME )
//! context = 'irqs_off' | 'lock' NAME | 'mm' NAME | 'stop_machine' | 'rcu' | 'idle'
//!        | 'polling_idle' | 'patch' '(' expr ',' expr ')'                  # first byte, length in bytes
//! CPUS   = 'all' | 'others' | INT{','INT}
//! args   = '('[arg{','arg}]')' | arg{','arg}
//! cond   = expr ('=='|'!='|'<'|'<='|'>'|'>=') expr
//! expr   = product {('+'|'-') product}
//! product = atom {'*' atom}
//! atom   = INT[K|M|G|'pages'] | NAME | '-'ERRNO | '('expr')'
//! call   = NAME '('[arg{','arg}]')'
//! arg    = expr | FLAG{'|'FLAG} | code(NAME) | jit(NAME)
//! ```
//!
//! Where the grammar needs more words:
//! - A name in capitals is a flag, any other a variable, label or call.
//! - The words that begin a statement can't be names.
//! - INT is decimal or `0x…`. A unit letter is glued to it; `pages` stands after it.
//! - STR is in double quotes on one line, with `\"`, `\\`, `\n`, `\r`, `\t`.
//! - In `fail vmalloc #2 with ENOMEM` the `#` begins no comment.
//! - A version range holds both its ends.
//! - Operands in parentheses follow OPNAME without a blank.
//! - Braces and parentheses nest at most 64 deep together.

pub mod ast;
mod error;
mod expr;
mod file;
mod lex;
mod print;
mod stmt;

pub use error::{SyntaxError, SyntaxErrorKind};

use winnow::error::ErrMode;
use winnow::stream::{LocatingSlice, Stateful};

use crate::span::{LineIndex, Span};

/// Reads a scenario file.
pub fn parse(text: &str) -> Result<ast::File, SyntaxError> {
    let mut input =
        Stateful { input: LocatingSlice::new(text), state: lex::State { text, depth: 0 } };
    file::file(&mut input).map_err(|error| match error {
        ErrMode::Backtrack(failure) | ErrMode::Cut(failure) => {
            located(text, failure.kind, failure.span)
        }
        // The input is complete, so nothing asks for more of it.
        ErrMode::Incomplete(_) => {
            let kind = SyntaxErrorKind::Unexpected {
                expected: vec!["more text"],
                found: "the end of the file".to_owned(),
                nearest: None,
                hint: None,
            };
            located(text, kind, Span::new(text.len(), text.len()))
        }
    })
}

/// Reads a scenario file whose bytes may not be text.
pub fn parse_bytes(bytes: &[u8]) -> Result<ast::File, SyntaxError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text),
        Err(error) => {
            let at = error.valid_up_to();
            let before = bytes.get(..at).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or("");
            Err(located(before, SyntaxErrorKind::NotText, Span::new(at, at + 1)))
        }
    }
}

fn located(text: &str, kind: SyntaxErrorKind, span: Span) -> SyntaxError {
    let position = LineIndex::new(text).position(text, span.start);
    let found = span.text(text).lines().next().unwrap_or("").to_owned();
    SyntaxError { kind: Box::new(kind), span, position, found }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::EVERYTHING;
