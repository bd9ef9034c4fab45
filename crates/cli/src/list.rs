//! `textbed list`.

use anyhow::Result;
use textbed_arch::cite::{Evidence, Text};
use textbed_arch::{Arch, Cite, features, insn};
use textbed_check::{calibration, rules};
use textbed_kernel::{CALLS, KERNELS, OPTIONS, ParamKind, Returns};
use textbed_report::text::Table;

use crate::args::Listing;
use crate::output::Out;
use crate::status::Status;
use crate::{inputs, options};

/// `textbed list WHAT`.
pub(crate) fn list(what: Listing, out: &mut Out) -> Result<Status> {
    let table = match what {
        Listing::Rules => rule_table(),
        Listing::Scenarios => scenario_table()?,
        Listing::Bugs => bug_table()?,
        Listing::Calibration => calibration_table(),
        Listing::Calls => call_table(),
        Listing::Ops => op_table(),
        Listing::Options => return option_tables(out),
    };
    out.table(&table)?;
    Ok(Status::Clean)
}

fn rule_table() -> Table {
    let mut table =
        Table::new(["rule", "family", "certain", "possible", "sources", "what it finds"]);
    for row in rules::RULES {
        table.row([
            row.name.to_owned(),
            row.family.name().to_owned(),
            row.certain.name().to_owned(),
            row.possible.name().to_owned(),
            sources(row.cites),
            row.summary.to_owned(),
        ]);
    }
    table
}

/// What a rule rests on: manuals, kernels, models, each with how far it was checked.
fn sources(cites: &[Cite]) -> String {
    let of = |kind: Text| {
        let evidence: Vec<Evidence> = [Evidence::Read, Evidence::Deduced, Evidence::Memory]
            .into_iter()
            .filter(|e| cites.iter().any(|c| c.evidence == *e && c.text() == Some(kind)))
            .collect();
        (!evidence.is_empty()).then(|| {
            let words: Vec<String> = evidence.iter().map(ToString::to_string).collect();
            format!("{kind} ({})", words.join(", "))
        })
    };
    Text::ALL.into_iter().filter_map(of).collect::<Vec<_>>().join(", ")
}

fn scenario_table() -> Result<Table> {
    let names: Vec<&str> = rules::RULES.iter().map(|row| row.name).collect();
    let mut table = Table::new(["file", "scenario", "architectures", "kernels"]);
    for file in inputs::scenarios("scenarios".as_ref())? {
        let path = file.display().to_string();
        match textbed_scenario::load(&path, inputs::text(&file)?, &names) {
            Ok((loaded, _)) => table.row([
                path.clone(),
                loaded.name().to_owned(),
                join(&loaded.archs()),
                join(&loaded.kernels()),
            ]),
            Err(_) => table.row([path, "(cannot be read: textbed run tells why)".to_owned()]),
        }
    }
    Ok(table)
}

/// The bugs below `scenarios/bugs`: one a folder, its bad variant says the rest.
fn bug_table() -> Result<Table> {
    let names: Vec<&str> = rules::RULES.iter().map(|row| row.name).collect();
    let mut table = Table::new(["bug", "architectures", "found by", "what", "origin"]);
    for file in inputs::scenarios("scenarios/bugs".as_ref())? {
        if file.file_name().is_none_or(|name| name != "bad.tb") {
            continue;
        }
        let path = file.display().to_string();
        let folder = file.parent().and_then(|p| p.file_name());
        let bug = folder.map_or(String::new(), |name| name.to_string_lossy().into_owned());
        let text = inputs::text(&file)?;
        // The first line, and those that go on with it.
        let mut lines = text.lines();
        let first = lines.next().and_then(|line| line.strip_prefix("# Origin: "));
        let mut origin = first.unwrap_or("(not said)").to_owned();
        for more in lines.map_while(|line| line.strip_prefix("#   ")) {
            origin.push(' ');
            origin.push_str(more);
        }
        match textbed_scenario::load(&path, text, &names) {
            Ok((loaded, _)) => {
                let about = loaded.about().unwrap_or("").to_owned();
                table.row([bug, join(&loaded.archs()), rules_of(&loaded), about, origin]);
            }
            Err(_) => table.row([bug, "(cannot be read: textbed run tells why)".to_owned()]),
        }
    }
    Ok(table)
}

/// The rules that a scenario expects to find something, in the order of the text.
fn rules_of(loaded: &textbed_scenario::Loaded) -> String {
    use textbed_scenario::syntax::ast::{Block, Expected};

    let mut rules: Vec<&str> = Vec::new();
    for block in &loaded.file().blocks {
        if let Block::Expect(expect) = &block.value
            && let Expected::Items(items) = &expect.expected.value
        {
            for item in items {
                if !rules.contains(&item.value.rule.value.as_str()) {
                    rules.push(&item.value.rule.value);
                }
            }
        }
    }
    rules.join(", ")
}

fn calibration_table() -> Table {
    let mut table = Table::new(["allowed", "architectures", "because", "shown by", "source"]);
    for row in calibration::CALIBRATION {
        let shown = match row.shown {
            calibration::Shown::Scenario(path) => path.to_owned(),
            calibration::Shown::Test(file, name) => format!("{file}: {name}"),
        };
        table.row([
            row.what.to_owned(),
            join(row.archs),
            row.why.to_owned(),
            shown,
            row.cite.to_string(),
        ]);
    }
    table
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn call_table() -> Table {
    let mut table = Table::new(["call", "architectures", "since", "until", "returns", "what"]);
    for call in CALLS {
        let params: Vec<String> = call
            .params
            .iter()
            .map(|p| match p.kind {
                ParamKind::Pages => format!("{} (pages)", p.name),
                _ => p.name.to_owned(),
            })
            .collect();
        let version =
            |v: Option<textbed_kernel::Version>| v.map_or(String::new(), |v| v.to_string());
        table.row([
            format!("{}({})", call.name, params.join(", ")),
            if call.archs.len() == Arch::ALL.len() { "all".to_owned() } else { join(call.archs) },
            version(call.since),
            version(call.until),
            match call.returns {
                Returns::Errno => "0 or -errno",
                Returns::Nonzero => "0, or non-zero on failure",
                Returns::PointerOrNull => "pointer or NULL",
                Returns::PointerOrErr => "pointer or ERR_PTR",
                Returns::Bool => "0 or 1",
                Returns::Void => "nothing",
            }
            .to_owned(),
            call.doc.to_owned(),
        ]);
    }
    for call in textbed_scenario::run::BUILT_INS {
        table.row([
            format!("{}({})", call.name, call.params),
            "all".to_owned(),
            String::new(),
            String::new(),
            call.returns.to_owned(),
            format!("{} (of the runner)", call.doc),
        ]);
    }
    table
}

fn op_table() -> Table {
    let mut table =
        Table::new(["architecture", "instruction", "encoding", "effect", "listed as", "source"]);
    for arch in options::SIMULATED {
        for row in insn::rows(arch) {
            let listed = match row.live_patchable {
                Some(patch) => patch.to_string(),
                None => row.serialising.to_string(),
            };
            table.row([
                arch.to_string(),
                row.title(),
                row.pattern.to_string(),
                format!("{:?}", row.effect),
                listed,
                row.cite.to_string(),
            ]);
        }
    }
    table
}

fn option_tables(out: &mut Out) -> Result<Status> {
    let mut config = Table::new(["config", "architectures", "meaning"]);
    for option in OPTIONS {
        config.row([option.name.to_owned(), join(option.archs), option.doc.to_owned()]);
    }
    let mut cpu = Table::new(["feature", "default", "meaning"]);
    for arch in options::SIMULATED {
        for f in features::named(arch) {
            let default = if f.default { "1" } else { "0" };
            cpu.row([format!("{arch}.{}", f.name), default.to_owned(), f.meaning.to_owned()]);
        }
    }
    let mut kernels = Table::new(["kernel", "simulated", "note"]);
    for k in KERNELS {
        let simulated = if k.simulated { "yes" } else { "logs only" };
        kernels.row([k.version.to_string(), simulated.to_owned(), k.note.to_owned()]);
    }
    for (n, table) in [kernels, config, cpu].iter().enumerate() {
        if n > 0 {
            out.text("\n")?;
        }
        out.table(table)?;
    }
    Ok(Status::Clean)
}
