//! `aerostat completions` and `aerostat man`: what shells and readers are told of the commands,
//! from the same definitions that parse the arguments.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

use super::client::print;
use super::{Failure, detach};

#[derive(Args, Debug)]
pub(super) struct CompletionsArguments {
    /// The shell.
    shell: KnownShell,
}

/// A shell with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KnownShell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args, Debug)]
pub(super) struct ManArguments {
    /// The directory for the pages; it is made where it is missing.
    directory: PathBuf,
}

pub(super) fn completions(arguments: &CompletionsArguments, command: Command) -> Result<ExitCode, Failure> {
    print(&script(arguments.shell, command))?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: KnownShell, mut command: Command) -> String {
    let shell = match shell {
        KnownShell::Bash => Shell::Bash,
        KnownShell::Zsh => Shell::Zsh,
        KnownShell::Fish => Shell::Fish,
    };
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    // The generators list options that are hidden: bash among others in a line, zsh in a line each.
    let script = String::from_utf8_lossy(&script).replace(&format!(" --{}", detach::OPTION), "");
    let is_shown = |line: &&str| !line.contains(detach::OPTION);
    script.split_inclusive('\n').filter(is_shown).collect()
}

pub(super) fn man(arguments: &ManArguments, command: Command) -> Result<ExitCode, Failure> {
    let directory = &arguments.directory;
    let written = fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command, directory));
    let failed = |error| format!("{}: the pages can't be written: {error}; choose another place", directory.display());
    written.map_err(|error| Failure::refused(failed(error)))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::{KnownShell, ManArguments, man, script};
    use crate::cli::{Arguments, detach};
    use clap::CommandFactory;
    use std::fs;

    /// The verbs that a user sees.
    fn verbs() -> Vec<String> {
        let command = Arguments::command();
        let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        verbs.map(|verb| verb.get_name().to_owned()).collect()
    }

    #[test]
    fn completions_know_every_verb() {
        assert!(verbs().len() > 15, "{:?}", verbs());
        for shell in [KnownShell::Bash, KnownShell::Zsh, KnownShell::Fish] {
            let script = script(shell, Arguments::command());
            for verb in verbs() {
                assert!(script.contains(&verb), "{shell:?}: {verb}");
            }
            assert!(script.contains("dry-run"), "{shell:?} has no options");
            assert!(!script.contains(detach::OPTION), "{shell:?} has hidden options");
        }
    }

    #[test]
    fn every_verb_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("man1");
        man(&ManArguments { directory: place.clone() }, Arguments::command()).unwrap();
        for verb in verbs() {
            let page = fs::read_to_string(place.join(format!("aerostat-{verb}.1"))).unwrap();
            assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH DESCRIPTION"), "{verb}: {page}");
        }
        assert!(place.join("aerostat.1").exists());
        let file = place.join("aerostat.1");
        let refused = man(&ManArguments { directory: file }, Arguments::command()).unwrap_err();
        assert!(refused.to_string().contains("aerostat.1: the pages can't be written"), "{refused}");
    }
}
