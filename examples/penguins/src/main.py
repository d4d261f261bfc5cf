"""Trains a small neural network to tell three species of penguins apart by four measurements.

Runs under aicert: the code is at /workspace/src, the data set at /workspace/resources/penguins.csv, and what is left
in /workspace/outputs is what gets certified.
"""

import csv
import json
import pathlib

import numpy as np
from safetensors.numpy import save_file

DATA = pathlib.Path("/workspace/resources/penguins.csv")
OUTPUTS = pathlib.Path("/workspace/outputs")
FEATURES = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
SPECIES = ["Adelie", "Chinstrap", "Gentoo"]
HIDDEN, EPOCHS, LEARNING_RATE = 16, 600, 0.05


def load():
    with DATA.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(row[name] not in ("", "NA") for name in FEATURES)]
    x = np.array([[float(row[name]) for name in FEATURES] for row in rows], dtype=np.float32)
    y = np.array([SPECIES.index(row["species"]) for row in rows])
    return x, y


def forward(parameters, x):
    hidden = np.tanh((x - parameters["mean"]) / parameters["std"] @ parameters["w1"] + parameters["b1"])
    logits = hidden @ parameters["w2"] + parameters["b2"]
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return hidden, exp / exp.sum(axis=1, keepdims=True)


def main():
    rng = np.random.default_rng(20260101)
    x, y = load()
    order = rng.permutation(len(x))
    test, train = order[: len(x) // 4], order[len(x) // 4 :]
    parameters = {
        "mean": x[train].mean(axis=0),
        "std": x[train].std(axis=0),
        "w1": rng.normal(0, 0.5, (len(FEATURES), HIDDEN)).astype(np.float32),
        "b1": np.zeros(HIDDEN, dtype=np.float32),
        "w2": rng.normal(0, 0.5, (HIDDEN, len(SPECIES))).astype(np.float32),
        "b2": np.zeros(len(SPECIES), dtype=np.float32),
    }
    target = np.eye(len(SPECIES), dtype=np.float32)[y]
    for epoch in range(1, EPOCHS + 1):
        hidden, probabilities = forward(parameters, x[train])
        error = (probabilities - target[train]) / len(train)
        back = error @ parameters["w2"].T * (1 - hidden**2)
        scaled = (x[train] - parameters["mean"]) / parameters["std"]
        gradients = {"w2": hidden.T @ error, "b2": error.sum(axis=0), "w1": scaled.T @ back, "b1": back.sum(axis=0)}
        for name, gradient in gradients.items():
            parameters[name] -= LEARNING_RATE * 10 * gradient
        if epoch % 100 == 0:
            loss = -np.log(probabilities[np.arange(len(train)), y[train]]).mean()
            print(f"epoch {epoch:4d}  loss {loss:.4f}", flush=True)

    accuracy = float((forward(parameters, x[test])[1].argmax(axis=1) == y[test]).mean())
    print(f"accuracy on {len(test)} penguins not seen in training: {accuracy:.3f}", flush=True)
    OUTPUTS.mkdir(exist_ok=True)
    save_file({name: np.ascontiguousarray(value) for name, value in parameters.items()}, OUTPUTS / "model.safetensors")
    card = {"features": FEATURES, "species": SPECIES, "test_accuracy": round(accuracy, 4), "test_size": len(test)}
    (OUTPUTS / "model.json").write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    main()
