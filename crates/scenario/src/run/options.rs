//! From headers and options to a booted kernel.

use textbed_arch::{Arch, Features};
use textbed_kernel::{BootArgs, Config, Kernel, KernelError, OPTIONS};
use textbed_machine::{MachineError, Policy};

use super::{RunError, RunOptions};
use crate::analyse::architectures;
use crate::arches;
use crate::diagnostic::{Diagnostic, Severity};
use crate::errno;
use crate::span::Span;
use crate::suggest;
use crate::syntax::ast::{File, Header};

/// Why there is no kernel.
pub(super) enum BootError {
    /// Not modelled.
    NotModelled(String),
    /// Anything else.
    Run(RunError),
}

/// Boots what the headers and options ask for.
pub(super) fn boot(
    file: &File,
    options: &RunOptions,
    cpus: u16,
    policy: Box<dyn Policy>,
) -> Result<Kernel, BootError> {
    let arch = options.arch;
    let features = features(file, options)?;
    let config = config(file, options)?;
    let args = BootArgs { version: options.kernel, arch, config, features, cpus };
    let mut kernel = Kernel::boot(args, policy).map_err(|error| match error {
        KernelError::NotModelled { what } => BootError::NotModelled(what),
        KernelError::Machine(error @ MachineError::NotModelled { .. }) => {
            BootError::NotModelled(error.to_string())
        }
        other => BootError::Run(RunError::Option(other.to_string())),
    })?;
    failures(file, &mut kernel)?;
    Ok(kernel)
}

fn wrong(span: Span, message: String, help: Option<String>) -> BootError {
    BootError::Run(RunError::Input(vec![Diagnostic {
        severity: Severity::Error,
        message,
        span,
        label: "here".to_owned(),
        related: Vec::new(),
        help,
    }]))
}

fn features(file: &File, options: &RunOptions) -> Result<Features, BootError> {
    let arch = options.arch;
    let mut features = Features::default_for(arch);
    for header in &file.headers {
        let Header::Feature { arch: whose, name, value } = &header.value else { continue };
        let members = arches::resolve(&whose.value).unwrap_or_default();
        // Of a group the name need not be everybody's.
        let theirs = members.len() == 1 || Features::by_name(arch, &name.value).is_some();
        if members.contains(&arch) && theirs {
            features = set(features, arch, &name.value, &value.value)
                .map_err(|message| wrong(name.span.to(value.span), message, None))?;
        }
    }
    for (name, value) in &options.features {
        if let Some(feature) = own(name, arch)? {
            features = set(features, arch, feature, value)
                .map_err(|message| BootError::Run(RunError::Option(message)))?;
        }
    }
    Ok(features)
}

/// What `ARCH.NAME` or `NAME` of the command line names on an architecture, if it is that one's.
fn own(name: &str, arch: Arch) -> Result<Option<&str>, BootError> {
    let (whose, short) = name.split_once('.').unwrap_or((arch.name(), name));
    let members = arches::resolve(whose).ok_or_else(|| {
        let hint = arches::suggest(whose).map(|s| format!(", did you mean `{s}`?"));
        let hint = hint.unwrap_or_default();
        BootError::Run(RunError::Option(format!("there is no architecture `{whose}`{hint}")))
    })?;
    Ok(members.contains(&arch).then_some(short))
}

fn set(features: Features, arch: Arch, name: &str, value: &str) -> Result<Features, String> {
    let Some(row) = Features::by_name(arch, name) else {
        let names = textbed_arch::features::named(arch).map(|f| f.name);
        let hint = suggest::nearest(name, names).map(|s| format!(", did you mean `{s}`?"));
        return Err(format!("{arch} has no feature `{name}`{}", hint.unwrap_or_default()));
    };
    match value {
        "1" | "y" | "on" | "yes" => Ok(features.union(row.bit)),
        "0" | "n" | "off" | "no" => Ok(features.difference(row.bit)),
        other => Err(format!("feature `{name}` is 0 or 1, not `{other}`")),
    }
}

fn config(file: &File, options: &RunOptions) -> Result<Config, BootError> {
    let arch = options.arch;
    let mut config = Config::new(arch);
    let archs = architectures(file);
    for header in &file.headers {
        if let Header::Config { name, value } = &header.value {
            let spec = OPTIONS.iter().find(|o| o.name == name.value.trim_start_matches("CONFIG_"));
            if let Some(spec) = spec.filter(|o| !archs.iter().any(|a| o.is_for(*a))) {
                let of: Vec<&str> = spec.archs.iter().map(|a| a.name()).collect();
                let here: Vec<&str> = archs.iter().map(|a| a.name()).collect();
                let message = format!(
                    "option {} is one of {}, and means nothing on {}",
                    spec.name,
                    of.join(" and "),
                    here.join(" and ")
                );
                return Err(wrong(name.span, message, None));
            }
            config
                .set(&name.value, &value.value)
                .map_err(|error| wrong(name.span.to(value.span), error.to_string(), None))?;
        }
    }
    for (name, value) in &options.config {
        if let Some(option) = own(name, arch)? {
            config
                .set(option, value)
                .map_err(|error| BootError::Run(RunError::Option(error.to_string())))?;
        }
    }
    Ok(config)
}

fn failures(file: &File, kernel: &mut Kernel) -> Result<(), BootError> {
    for header in &file.headers {
        let Header::Fail { call, nth, allocation, errno } = &header.value else { continue };
        let number = errno::number(&errno.value).ok_or_else(|| {
            wrong(errno.span, format!("there is no error `{}`", errno.value), None)
        })?;
        let nth_value = nth.as_ref().map_or(1, |n| n.value);
        let counted = u32::try_from(nth_value).map_err(|_| {
            wrong(header.span, format!("`#{nth_value}` is more than are counted"), None)
        })?;
        let allocation = allocation.as_ref().map(|a| u32::try_from(a.value).unwrap_or(u32::MAX));
        let set = match allocation {
            None => kernel.fail(&call.value, counted, i64::from(number)),
            Some(_) if errno.value != "ENOMEM" => {
                let message = "an allocation fails with ENOMEM alone".to_owned();
                return Err(wrong(errno.span, message, None));
            }
            Some(allocation) => kernel.fail_allocation(&call.value, counted, allocation),
        };
        set.map_err(|error| wrong(header.span, error.to_string(), None))?;
    }
    Ok(())
}
