//! Completions and man pages, from the same definitions as the parser.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use std::io;
use std::path::{Path, PathBuf};

/// The shells that completions are made for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Writes completions to `DIR/completions` and man pages to `DIR/man`; gives the files that were written.
pub fn generate<C: CommandFactory>(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut command = C::command();
    let name = command.get_name().to_owned();
    let (completions, man) = (directory.join("completions"), directory.join("man"));
    std::fs::create_dir_all(&completions)?;
    std::fs::create_dir_all(&man)?;
    let mut written = Vec::new();
    for shell in SHELLS {
        written.push(clap_complete::generate_to(shell, &mut command, &name, &completions)?);
    }
    command.build();
    man_pages(&command, &name, &man, &mut written)?;
    Ok(written)
}

fn man_pages(command: &Command, name: &str, directory: &Path, written: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name).render(&mut page)?;
    let path = directory.join(format!("{name}.1"));
    std::fs::write(&path, page)?;
    written.push(path);
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
    {
        man_pages(below, &format!("{name}-{}", below.get_name()), directory, written)?;
    }
    Ok(())
}
