"""What learns: network, example bank, analytic memory and the training of a stage."""
