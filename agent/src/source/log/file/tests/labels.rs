//! Labels of a file's stream.

use super::*;

#[test]
fn labels_of_the_path_win_over_the_inputs_and_filename_is_the_path() {
    let mut world = World::new(1, 1, "*.log");
    let path = world.writers[0].path.clone();
    let input = &mut world.agent().thread.inputs[0];
    input.labels = [("service", "x"), ("site", "s")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    let capture = shape::Capture::new("/(?<service>[a-z]+)(?<number>[0-9])[.]log$").unwrap();
    input.settings.labels_from_path.push(capture);
    let (labels, _) = input.shaping(&path);
    let filename = path.display().to_string();
    let expected =
        [("filename", &*filename), ("job", "app"), ("number", "0"), ("service", "app"), ("site", "s")];
    assert_eq!(labels.iter().map(|(n, v)| (&**n, &**v)).collect::<Vec<_>>(), expected);
    world.writers[0].write(3, 1);
    world.catch_up();
    world.check();
}
