# One image for cores and agents: docker compose up builds it.
FROM node:24-bookworm-slim
WORKDIR /nearcast
COPY package.json package-lock.json ./
COPY server-agent/package.json server-agent/
COPY server-agent/bin server-agent/bin
# No scripts: the image has its own Node 24, and nothing here needs a compiler.
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund
COPY . .
# What the program writes: its data, and (docker-compose.yml) the tokens that it hands to agents.
RUN mkdir /data /tokens && chown node:node /data /tokens
# No root, for port 53 neither: Docker lets every user of a container's own network listen there.
USER node
ENTRYPOINT ["node", "core-node/bin/nearcast.js"]
CMD ["core"]
