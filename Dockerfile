# One image for cores and agents: docker compose up builds it.
FROM node:24-bookworm-slim
WORKDIR /nearcast
COPY package.json package-lock.json ./
COPY server-agent/package.json server-agent/
COPY server-agent/bin server-agent/bin
# No scripts: the image has its own Node 24, and nothing here needs a compiler.
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund
COPY . .
# Port 53 without root: the data folder is all that the program writes.
RUN mkdir /data && chown node:node /data
USER node
ENTRYPOINT ["node", "core-node/bin/nearcast.js"]
CMD ["core"]
